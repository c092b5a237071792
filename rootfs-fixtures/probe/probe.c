// SPDX-License-Identifier: Apache-2.0
/*
 * The witness: a static program that runs inside a container and prints, as one line of JSON, what it was
 * given; then tries what its arguments say and adds what came of it. ../README.md has the fields and actions.
 */
#include "action.h"
#include "json.h"
#include "report.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv, char **environment)
{
	struct context context = {.argv = argv, .environment = environment};
	struct json json = {0};

	json_open(&json, '{');
	write_report(&json, argv, environment);
	json_key(&json, "actions");
	json_open(&json, '[');
	for (int i = 1; i < argc && !context.is_over;) {
		int taken = write_action(&json, argv + i, argc - i, &context);

		if (taken == 0) {
			fprintf(stderr, "probe: no such action, or too few arguments: %s\n", argv[i]);
			return 64;
		}
		i += taken;
	}
	json_close(&json, ']');
	json_close(&json, '}');
	if (fwrite(json.bytes, 1, json.used, stdout) != json.used || putchar('\n') == EOF || fflush(stdout) != 0)
		return 74;
	return context.status;
}
