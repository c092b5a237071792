// SPDX-License-Identifier: Apache-2.0
#ifndef PROBE_REPORT_H
#define PROBE_REPORT_H

#include "json.h"

/* Writes the members of the report; the caller opens and closes the object. */
void write_report(struct json *json, char **argv, char **environment);

#endif
