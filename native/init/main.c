/*
 * Start: argv[1] is the first of our own descriptors (those below it are the container's): the plan, the trace, the
 * socket to the host, then the inherited slots in order.
 */
#include <asm/unistd.h>
#include <elf.h>
#include <linux/prctl.h>
#include <linux/time.h>

#include "init.h"

#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define SEEK_END 2
#define CLOSE_RANGE_CLOEXEC 4

int (*clock_of_vdso)(int clock, struct timespec *now);

/* The kernel maps a small ELF image into every process; its symbols are found as ld.so would. */
static void find_clock(const Elf64_auxv_t *aux)
{
	const unsigned char *base = NULL;
	for (; aux->a_type != AT_NULL; aux++)
		if (aux->a_type == AT_SYSINFO_EHDR)
			base = (const unsigned char *)aux->a_un.a_val;
	if (base == NULL)
		return;
	const Elf64_Ehdr *header = (const void *)base;
	const Elf64_Phdr *segments = (const void *)(base + header->e_phoff);
	const Elf64_Dyn *dynamic = NULL;
	uint64_t load = 0;
	for (int i = 0; i < header->e_phnum; i++) {
		if (segments[i].p_type == PT_LOAD)
			load = (uint64_t)(uintptr_t)base + segments[i].p_offset - segments[i].p_vaddr;
		if (segments[i].p_type == PT_DYNAMIC)
			dynamic = (const void *)(base + segments[i].p_offset);
	}
	const Elf64_Sym *symbols = NULL;
	const char *names = NULL;
	for (; dynamic != NULL && dynamic->d_tag != DT_NULL; dynamic++) {
		if (dynamic->d_tag == DT_SYMTAB)
			symbols = (const void *)(uintptr_t)(load + dynamic->d_un.d_ptr);
		if (dynamic->d_tag == DT_STRTAB)
			names = (const void *)(uintptr_t)(load + dynamic->d_un.d_ptr);
	}
	/* the string table lies behind the symbol table: that is where the symbols end */
	for (const Elf64_Sym *symbol = symbols; symbol != NULL && (const char *)(symbol + 1) <= names; symbol++)
		if (text_equal(names + symbol->st_name, "__vdso_clock_gettime") ||
		    text_equal(names + symbol->st_name, "__kernel_clock_gettime"))
			clock_of_vdso = (int (*)(int, struct timespec *))(uintptr_t)(load + symbol->st_value);
}

static int number_of(const char *text)
{
	int number = 0;
	for (; *text >= '0' && *text <= '9' && number < 100000; text++)
		number = number * 10 + (*text - '0');
	return number;
}

/* Maps the plan privately, proves it, and makes it read-only. */
static const unsigned char *open_plan(int descriptor)
{
	long size = sys(NULL, __NR_lseek, descriptor, 0, SEEK_END);
	if (size <= 0 || size > (long)PLAN_MAX_SIZE)
		return NULL;
	long map = sys(NULL, __NR_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
	if (map < 0 && map > -4096)
		return NULL;
	unsigned char *plan = (unsigned char *)map;
	if (!verify_plan(plan, (uint64_t)size) || sys(NULL, __NR_mprotect, plan, size, PROT_READ) < 0)
		return NULL;
	return plan;
}

static struct trace_header *open_trace(int descriptor)
{
	long size = sys(NULL, __NR_lseek, descriptor, 0, SEEK_END);
	if (size < (long)sizeof(struct trace_header))
		return NULL;
	long map = sys(NULL, __NR_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
	return map < 0 && map > -4096 ? NULL : (struct trace_header *)map;
}

static int run_init(int argc, char **argv, const Elf64_auxv_t *aux)
{
	static struct run run;
	if (argc != 2)
		return 126;
	int own = number_of(argv[1]);
	/* before anything else: what is not handed on in so many words is closed at execve (CVE-2024-21626) */
	if (own < 3 || sys(NULL, __NR_close_range, own, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return 126;
	/* nobody may trace init and take its descriptors (CVE-2016-9962) */
	sys(NULL, __NR_prctl, PR_SET_DUMPABLE, 0);
	find_clock(aux);
	run.preserved = own - 3;
	run.turns = own + 2;
	const unsigned char *plan = open_plan(own);
	run.trace = open_trace(own + 1);
	if (plan == NULL || run.trace == NULL)
		return 125;
	sys(NULL, __NR_close, own);
	sys(NULL, __NR_close, own + 1);
	const struct plan_header *header = (const void *)plan;
	for (uint32_t slot = 0; slot < PLAN_SLOTS; slot++)
		run.slots[slot] = slot < header->inherited ? own + 3 + (int)slot : -1;
	run_plan(&run, plan);
	return 1;
}

/* Called by _start with the stack as the kernel made it: argc, argv, envp, auxv. */
void start_init(uint64_t *stack);
void start_init(uint64_t *stack)
{
	int argc = (int)stack[0];
	char **argv = (char **)(stack + 1);
	uint64_t *environment = stack + 1 + argc + 1;
	while (*environment != 0)
		environment++;
	int status = run_init(argc, argv, (const Elf64_auxv_t *)(const void *)(environment + 1));
	sys(NULL, __NR_exit_group, status);
	/* the container's seccomp filter may refuse even that, but no process outlives an invalid instruction */
	__builtin_trap();
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start_init\n");
#else
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x0, sp\n\tbl start_init\n");
#endif
