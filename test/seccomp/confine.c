/*
 * Loads the filter in the file argv[1] and makes the calls that standard input
 * lists, one "NUMBER ARG0 ARG1 ARG2" a line, or "i386 NUMBER ..." for int 0x80;
 * writes each result, negative being an errno.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static long call_i386(long number, long a, long b, long c)
{
#ifdef __x86_64__
	long result = number;

	__asm__ volatile("int $0x80" : "+a"(result) : "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return (int)result;
#else
	(void)number, (void)a, (void)b, (void)c;
	return -ENOSYS;
#endif
}

int main(int argc, char **argv)
{
	static struct sock_filter instructions[BPF_MAXINSNS];
	struct sock_fprog program = {.filter = instructions};
	char line[256];
	FILE *file;

	if (argc > 1) {
		file = fopen(argv[1], "r");
		if (file == NULL)
			return 2;
		program.len = (unsigned short)fread(instructions, sizeof(*instructions), BPF_MAXINSNS, file);
		fclose(file);
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
			return 3;
		if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
			return 4;
	}
	while (fgets(line, sizeof(line), stdin) != NULL) {
		char *at = line;
		int i386 = strncmp(line, "i386 ", 5) == 0;
		long arg[4] = {0};
		long result;

		if (i386)
			at += 5;
		for (int i = 0; i < 4; i++)
			arg[i] = strtol(at, &at, 0);
		if (i386) {
			result = call_i386(arg[0], arg[1], arg[2], arg[3]);
		} else {
			result = syscall(arg[0], arg[1], arg[2], arg[3], 0, 0, 0);
			if (result == -1)
				result = -errno;
		}
		printf("%ld\n", result);
		fflush(stdout);
	}
	return 0;
}
