#!/bin/sh
# The static programs: init (freestanding) and the monitor. The addon is node-gyp's (binding.gyp).
set -eu
cd "$(dirname "$0")/.."
mkdir -p dist/native
WARN="-Wall -Wextra -Wconversion -Wshadow -Wswitch-enum -Wmissing-prototypes -Wstrict-prototypes -Wvla -Werror"
# CPPFLAGS: as for make; the benchmark leaves reports out with it
gcc -std=gnu17 -O2 $WARN ${CPPFLAGS:-} -ffreestanding -fno-builtin -fno-tree-loop-distribute-patterns -fno-stack-protector \
	-fno-asynchronous-unwind-tables -fcf-protection=none -nostdlib -static -no-pie -Wl,-z,noexecstack,--build-id=none -s \
	native/init/*.c -o dist/native/init
if [ -e native/monitor/main.c ]; then
	gcc -std=c17 -O2 $WARN -static -s native/monitor/*.c -o dist/native/monitor
fi
