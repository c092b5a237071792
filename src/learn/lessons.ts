import type { Lesson } from "./lesson.ts";
import { capabilities } from "./lessons/capabilities.ts";
import { chroot } from "./lessons/chroot.ts";
import { processes } from "./lessons/processes.ts";
import { users } from "./lessons/users.ts";

/** All lessons, in the order in which to take them; a new one is a file in lessons/ and a word here. */
export const LESSONS: readonly Lesson[] = [chroot, processes, users, capabilities];
