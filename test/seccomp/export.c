/*
 * What libseccomp makes of a profile: reads "default ACTION", "arch NAME" and
 * "rule ACTION CALL [INDEX OP VALUE VALUE]..." lines, actions and operators as
 * libseccomp's numbers, and writes the filter to standard output.
 */
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int result, const char *line)
{
	if (result == 0)
		return;
	fprintf(stderr, "%s: %s\n", line, strerror(-result));
	exit(1);
}

static void add_rule(scmp_filter_ctx filter, const char *line)
{
	struct scmp_arg_cmp args[6];
	char name[64];
	uint32_t action;
	unsigned int count = 0;
	int used, number;

	if (sscanf(line, "rule %" SCNu32 " %63s%n", &action, name, &used) != 2)
		exit(2);
	for (const char *at = line + used; count < 6; at += used, count++) {
		unsigned int index, op;
		uint64_t a, b;

		if (sscanf(at, "%u %u %" SCNu64 " %" SCNu64 "%n", &index, &op, &a, &b, &used) != 4)
			break;
		args[count] = (struct scmp_arg_cmp){index, op, a, b};
	}
	number = seccomp_syscall_resolve_name(name);
	if (number != __NR_SCMP_ERROR)
		check(seccomp_rule_add_array(filter, action, number, count, args), line);
}

int main(void)
{
	scmp_filter_ctx filter = NULL;
	char line[1024];
	uint32_t action;
	char name[64];

	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (sscanf(line, "default %" SCNu32, &action) == 1)
			filter = seccomp_init(action);
		else if (sscanf(line, "arch %63s", name) == 1)
			check(seccomp_arch_add(filter, seccomp_arch_resolve_name(name)), line);
		else
			add_rule(filter, line);
	}
	check(seccomp_export_bpf(filter, 1), "export");
	return 0;
}
