/* SPDX-License-Identifier: Apache-2.0 */
/* exit.json: how the container ended, complete or absent, never half. */
#include "monitor.h"

#include <fcntl.h>
#include <stdio.h> /* renameat */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Both versions' files say "oom_kill COUNT" in a line of its own. */
static bool was_short_of_memory(int fd)
{
	static const char key[] = "\noom_kill ";
	char text[1024];
	const ssize_t size = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);
	if (size <= 0)
		return false;
	text[size] = '\0';
	const char *count = strstr(text, key);
	return count != NULL && count[sizeof(key) - 1] != '0';
}

bool write_exit_record(const struct child *container, int memory_fd, uint64_t dropped)
{
	const int signal = WIFSIGNALED(container->status) ? WTERMSIG(container->status) : 0;
	const int status = signal != 0 ? 128 + signal : WEXITSTATUS(container->status);
	char record[256], *end = record;
	end = put_text(end, "{\"version\":1,\"pid\":");
	end = put_number(end, (uint64_t)container->pid, 1);
	end = put_text(end, ",\"status\":");
	end = put_number(end, (uint64_t)status, 1);
	end = put_text(end, ",\"signal\":");
	end = put_number(end, (uint64_t)signal, 1);
	end = put_text(end, ",\"oomKilled\":");
	end = put_text(end, was_short_of_memory(memory_fd) ? "true" : "false");
	end = put_text(end, ",\"logRecordsDropped\":");
	end = put_number(end, dropped, 1);
	end = put_text(end, ",\"finishedAt\":\"");
	end = put_time(end, &container->exited_at);
	end = put_text(end, "\"}\n");

	const int fd =
	    openat(DIRECTORY_FD, "exit.json.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	/* without fsync a power cut may leave the new name with no bytes behind it */
	const bool written = write(fd, record, (size_t)(end - record)) == end - record && fsync(fd) == 0;
	close(fd);
	if (!written || renameat(DIRECTORY_FD, "exit.json.tmp", DIRECTORY_FD, "exit.json") < 0) {
		unlinkat(DIRECTORY_FD, "exit.json.tmp", 0);
		return false;
	}
	return true;
}
