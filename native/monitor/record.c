/* SPDX-License-Identifier: Apache-2.0 */
/* exit.json: how the container ended, complete or absent, never half. */
#include "monitor.h"

#include <fcntl.h>
#include <stdio.h> /* renameat */
#include <sys/wait.h>
#include <unistd.h>

bool write_exit_record(const struct child *container, uint64_t dropped)
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
	end = put_text(end, ",\"oomKilled\":false,\"logRecordsDropped\":");
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
