// SPDX-License-Identifier: Apache-2.0
#ifndef PROBE_ACTION_H
#define PROBE_ACTION_H

#include "json.h"

struct context {
	char **argv, **environment;
	bool is_over; /* --exit was met */
	int status;
};

/*
 * Does the action at words[0] and writes one object { action, arguments, result, error }.
 * Returns how many words it took, 0 if there is no such action or too few words.
 */
int write_action(struct json *json, char **words, int count, struct context *context);

#endif
