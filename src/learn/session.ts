import {
  existsSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readSync,
  rmdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { basename } from "node:path";
import { Container } from "../container/container.ts";
import type { Places } from "../engine/engine.ts";
import { ownProgram } from "../engine/monitor.ts";
import { AT_FDCWD, close, lock, O, open } from "../kernel/file.ts";
import { openProcess, reap, spawn } from "../kernel/process.ts";
import { pipe, tryCall } from "../kernel/syscall.ts";
import { releaseEndpoint, reservedContainers } from "../network/connection.ts";

/*
 * A lesson's containers are on the host, and a lesson can end at any moment: by Ctrl-C, or killed. So it never cleans up
 * by itself. Beside it lives a keeper, a process of ours in a group of its own that reads from a pipe. When the lesson's
 * end of that pipe is closed, by whatever it was, the keeper removes all there is of the lesson.
 *
 *   <state root>/.learn/<session>/state/    the containers' state, as of any
 *   <state root>/.learn/<session>/<id>/     a container's root and layers
 */

const LESSONS = ".learn";

/** Where one run of `learn` has its containers. */
export class Session {
  readonly directory: string;
  readonly places: Places;
  /** Locked for as long as we live: a session that is not can be swept. */
  readonly #lock: number;
  #made = 0;
  readonly #keeper: { pidfd: number; pipe: number };

  private constructor(directory: string, places: Places, locked: number) {
    this.directory = directory;
    this.places = places;
    this.#lock = locked;
    this.#keeper = startKeeper(directory, places);
  }

  /** Makes a place for a session, and removes what is left of those whose keepers were killed, too. */
  static open(places: Places): Session {
    const parent = `${places.root}/${LESSONS}`;
    if (existsSync(parent)) for (const name of readdirSync(parent)) sweep(`${parent}/${name}`, places);
    for (;;) {
      mkdirSync(parent, { recursive: true, mode: 0o700 });
      try {
        const directory = mkdtempSync(`${parent}/`);
        const fd = open(directory, O.RDONLY | O.DIRECTORY);
        if (lock(fd, false) && existsSync(directory)) return new Session(directory, places, fd);
        close(fd);
      } catch (error) {
        // another session ended, and took the parent with it
        if (existsSync(parent)) throw error;
      }
    }
  }

  /** The state root of its containers. */
  get root(): string {
    return stateOf(this.directory);
  }

  /** An id for its next container. */
  nextId(): string {
    return idOf(this.directory, String(++this.#made));
  }

  /** Ends it: returns when nothing of it is left. */
  close(): void {
    close(this.#lock);
    close(this.#keeper.pipe);
    reap(this.#keeper.pidfd);
    close(this.#keeper.pidfd);
  }
}

/** Ids are the host's names for cgroups and endpoints: they say whose session it is. */
function idOf(directory: string, serial: string): string {
  return `learn-${basename(directory)}-${serial}`;
}

function stateOf(directory: string): string {
  return `${directory}/state`;
}

function startKeeper(directory: string, { data, root }: Places): { pidfd: number; pipe: number } {
  const [theirs, ours] = pipe();
  const nothing = open("/dev/null", O.RDWR);
  const { file, argv, environment } = ownProgram(["--data", data, "--root", root, "learn", "--tidy", directory]);
  // a group of its own: Ctrl-C is not for it
  const pid = spawn(file, argv, environment, [theirs, nothing, 2], true);
  for (const fd of [theirs, nothing, file]) close(fd);
  return { pidfd: openProcess(pid), pipe: ours };
}

/** The whole life of a keeper: waits until its session is over, however that came, and removes what is left of it. */
export function keep(directory: string, places: Places): void {
  while (readSync(0, Buffer.alloc(1)) > 0);
  const fd = tryCall("openat", AT_FDCWD, directory, O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC, 0);
  if (fd < 0) return;
  lock(fd, true);
  if (isStill(directory, fd)) tidy(directory, places);
  close(fd);
}

function sweep(directory: string, places: Places): void {
  const fd = tryCall("openat", AT_FDCWD, directory, O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC, 0);
  if (fd < 0) return;
  if (lock(fd, false) && isStill(directory, fd)) tidy(directory, places);
  close(fd);
}

function isStill(path: string, fd: number): boolean {
  return statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino;
}

/** Can be repeated. */
function tidy(directory: string, { data }: Places): void {
  const failures: unknown[] = [];
  const attempt = (work: () => void) => {
    try {
      work();
    } catch (error) {
      failures.push(error);
    }
  };
  for (const container of Container.list(stateOf(directory))) attempt(() => container.delete({ force: true }));
  for (const id of reservedContainers(data))
    if (id.startsWith(idOf(directory, ""))) attempt(() => releaseEndpoint(data, id));
  if (failures.length > 0) throw failures[0];
  rmSync(directory, { recursive: true, force: true });
  try {
    rmdirSync(directory.slice(0, directory.lastIndexOf("/")));
  } catch {
    // other sessions are there
  }
}
