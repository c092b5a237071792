/* The terminal of the container's own devpts. */
#include <asm/ioctls.h>
#include <asm/unistd.h>
#include <linux/mount.h>

#include "init.h"

long step_open_terminal(struct run *run, const union plan_arg *arg)
{
	struct {
		uint16_t rows, columns, x, y;
	} size = {(uint16_t)arg[1].number, (uint16_t)arg[2].number, 0, 0};
	int unlocked = 0;
	long master = open_in_root(run, run->slots[arg[0].slot], "dev/pts/ptmx", O_RDWR | O_NOCTTY);
	RESULT(master);
	RESULT(sys(run, __NR_ioctl, master, TIOCSPTLCK, &unlocked));
	/* TIOCGPTPEER opens the other end by the master, wherever /dev/pts leads to */
	long terminal = sys(run, __NR_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	RESULT(terminal);
	if (size.rows != 0)
		RESULT(sys(run, __NR_ioctl, terminal, TIOCSWINSZ, &size));
	run->slots[arg[3].slot] = (int)master;
	run->slots[arg[4].slot] = (int)terminal;
	return 0;
}

long step_send_terminal(struct run *run, const union plan_arg *arg)
{
	static const char NAME[] = "/dev/ptmx";
	int socket = run->slots[arg[0].slot], master = run->slots[arg[1].slot];
	RESULT(send_with_descriptor(run, socket, NAME, sizeof NAME - 1, master));
	RESULT(sys(run, __NR_close, socket));
	return sys(run, __NR_close, master);
}

long step_attach_console(struct run *run, const union plan_arg *arg)
{
	long target = make_target(run, run->slots[arg[0].slot], "/dev/console", true, true);
	RESULT(target);
	long tree =
	    sys(run, __NR_open_tree, run->slots[arg[1].slot], "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	RESULT(tree);
	RESULT(sys(run, __NR_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
	RESULT(sys(run, __NR_close, tree));
	return sys(run, __NR_close, target);
}

long step_use_terminal(struct run *run, const union plan_arg *arg)
{
	int terminal = run->slots[arg[0].slot];
	RESULT(sys(run, __NR_ioctl, terminal, TIOCSCTTY, 0));
	/* the user must be able to reopen it through /dev/stdin */
	RESULT(sys(run, __NR_fchown, terminal, arg[1].number, (uint32_t)-1));
	for (int stream = 0; stream < 3; stream++)
		RESULT(sys(run, __NR_dup3, terminal, stream, 0));
	return sys(run, __NR_close, terminal);
}
