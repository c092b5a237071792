// SPDX-License-Identifier: Apache-2.0
#ifndef PROBE_FILE_H
#define PROBE_FILE_H

#include "json.h"
#include <sys/stat.h>

/* Content of a file, NUL-terminated, at most 1 MiB, or NULL with errno. Never waits (a FIFO reads as empty).
 */
char *read_file(const char *path, size_t *count);

/* Target of a symbolic link into target, or false with errno. */
bool read_link(int directory, const char *path, char *target, size_t size);

/* Kind of a file in one word: file directory symlink character block fifo socket. */
const char *file_type(mode_t mode);

/* Each of these writes one value; false with errno, and nothing written, if the path itself cannot be read.
 */
bool write_stat(struct json *json, const char *path);
bool write_xattrs(struct json *json, const char *path);
bool write_tree(struct json *json, const char *path);

#endif
