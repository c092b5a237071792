import type { Lesson } from "./lesson.ts";
import { capabilities } from "./lessons/capabilities.ts";
import { cgroups } from "./lessons/cgroups.ts";
import { chroot } from "./lessons/chroot.ts";
import { descriptors } from "./lessons/descriptors.ts";
import { firstProcess } from "./lessons/first-process.ts";
import { network } from "./lessons/network.ts";
import { overlay } from "./lessons/overlay.ts";
import { pivotRoot } from "./lessons/pivot-root.ts";
import { processes } from "./lessons/processes.ts";
import { propagation } from "./lessons/propagation.ts";
import { root } from "./lessons/root.ts";
import { seccomp } from "./lessons/seccomp.ts";
import { users } from "./lessons/users.ts";

/** All lessons, in the order in which to take them; a new one is a file in lessons/ and a word here. */
export const LESSONS: readonly Lesson[] = [
  chroot,
  pivotRoot,
  propagation,
  overlay,
  processes,
  firstProcess,
  users,
  capabilities,
  seccomp,
  descriptors,
  cgroups,
  network,
  root,
];
