import type { ResourceWrite } from "./cgroup-files.ts";
import type { UnitProperty } from "./cgroup-unit.ts";

/**
 * THE vocabulary: every step that can make a container, its arguments, its side and what it is for.
 * definitions.ts makes native/plan/steps.def of the init side, encode.ts bytes, explain.ts sentences.
 */

/**
 * What an argument is. On the wire all are 64 bits: a number itself, an offset into the pool, or a slot's index.
 * A slot is a place for a descriptor, named in the plan and numbered by the encoder.
 */
export type Kind = "number" | "string" | "strings" | "bytes" | "reads" | "writes" | "closes";

export type Value = {
  number: number | bigint;
  string: string;
  strings: readonly string[];
  bytes: Uint8Array;
  reads: string;
  writes: string;
  closes: string;
};

type Arguments<A> = { [K in keyof A]: A[K] extends Kind ? Value[A[K]] : never };

interface InitDefinition<A extends Record<string, Kind>> {
  /** Number on the wire; never reused. */
  opcode: number;
  args: A;
  /** One sentence without its subject: "names the machine web". */
  says: (args: Arguments<A>) => string;
  /** Why the step exists: what the kernel wants, which attack it stops. */
  why: string;
}

interface HostDefinition<A> {
  says: (args: A) => string;
  why: string;
  /** The argument that names the slot this step fills. */
  fills?: keyof A & string;
  /** What takes the effect back, on failure and on delete; absent where nothing outlives the step. */
  undo?: string;
}

function init<const A extends Record<string, Kind>>(
  opcode: number,
  args: A,
  says: (args: Arguments<A>) => string,
  why: string,
): InitDefinition<A> {
  return { opcode, args, says, why };
}

function host<A>(
  says: (args: A) => string,
  why: string,
  more: { fills?: keyof A & string; undo?: string } = {},
): HostDefinition<A> {
  return { says, why, ...more };
}

const lines = (map: string) => map.trim().replaceAll("\n", ", ");
/** As the kernel's new_decode_dev. */
function deviceName(device: number | bigint): string {
  const number = Number(device);
  return `${(number >>> 8) & 0xfff}:${(number & 0xff) | ((number >>> 12) & 0xfff00)}`;
}

const count = (things: readonly unknown[], noun: string) => `${things.length} ${noun}${things.length === 1 ? "" : "s"}`;
const hex = (value: number | bigint) => `0x${value.toString(16)}`;

/** Steps that init runs, inside or on its way in. At most five arguments each. */
// biome-ignore format: a table, one row a step
export const INIT_STEPS = {
  turn: init(1, { first: "number", count: "number" }, () => "waits while the host works", "Some effects need privileges or paths that only the host has; the sides take turns."),
  joinNamespace: init(2, { namespace: "closes", type: "number" }, ({ namespace }) => `joins the ${namespace} namespace`, "A namespace with a path is shared with whoever made it."),
  setTimeOffsets: init(3, { offsets: "string" }, ({ offsets }) => `shifts the clocks: ${offsets.trim().replaceAll("\n", ", ")}`, "Offsets can be written only before the first process enters the time namespace."),
  unshare: init(4, { namespaces: "number" }, ({ namespaces }) => `leaves the host's namespaces ${namespaceNames(namespaces)}`, "A cgroup namespace takes the caller's cgroup as its root, message queues the caller as their owner, and a time namespace needs offsets before it is entered: none can be made by clone here."),
  clone: init(5, { namespaces: "number" }, ({ namespaces }) => `clones the container's first process${Number(namespaces) === 0 ? "" : ` with new namespaces: ${namespaceNames(namespaces)}`}`, "One clone3 makes all namespaces at once; with CLONE_PARENT the process is a child of the one that started init, which can wait for it."),
  dieWithParent: init(6, { signal: "number" }, ({ signal }) => (Number(signal) === 0 ? "lives on without its creator" : "dies with its creator"), "A half-made container must not outlive the process that was making it."),
  becomeRoot: init(7, { uid: "number", gid: "number" }, ({ uid, gid }) => (Number(uid) === 0 && Number(gid) === 0 ? "becomes root of its user namespace" : `becomes ${uid}:${gid} of its user namespace, where nobody is root`), "A new user namespace starts with the overflow ids, which own nothing."),
  setDumpable: init(8, { dumpable: "number" }, ({ dumpable }) => (Number(dumpable) === 0 ? "forbids others to trace it" : "lets its user reach it through the host's proc"), "A dumpable init could be traced from a namespace it joins, and its descriptors taken (CVE-2016-9962)."),
  newSession: init(9, {}, () => "starts a session of its own", "Without one, the container could signal the caller's process group and take its terminal."),
  setPropagation: init(10, { propagation: "number" }, ({ propagation }) => `makes the mounts of its copy ${propagationName(propagation)}`, "Otherwise mounts made here would appear on the host."),
  attachRoot: init(11, { root: "reads", at: "string" }, ({ at }) => `attaches the root to its mount namespace${at === "/" ? "" : ` at ${at}`}`, "pivot_root wants a mount point, reached from here; a detached tree becomes one without any path of the host, but hooks look for it where the bundle has it."),
  makeFilesystem: init(12, { type: "string", source: "string", parameters: "strings", attributes: "number", mount: "writes" }, ({ type, parameters }) => `makes a ${type} filesystem${parameters.length === 0 ? "" : ` (${parameters.join(", ")})`}`, "The filesystem is made without a place; nothing in the root can redirect that."),
  attachMount: init(13, { mount: "closes", root: "reads", target: "string", follow: "number", proc: "number" }, ({ target, follow }) => `mounts it on ${target}${Number(follow) === 0 ? ", even if that is a link" : ""}`, "The target is looked up inside the root and the mount moved there by descriptor: a link in the image cannot lead it out (CVE-2021-30465)."),
  checkProcTarget: init(14, { root: "reads", target: "string" }, ({ target }) => `checks that ${target} is an ordinary directory`, "proc or sysfs mounted through a link leaves the real path unprotected (CVE-2019-19921)."),
  setMountAttributes: init(15, { mount: "reads", set: "number", clear: "number", propagation: "number", recursive: "number" }, ({ set, clear, propagation, recursive }) => set === 0 && clear === 0 ? `makes it ${propagationName(propagation)}` : `sets its attributes ${hex(set)}${Number(clear) === 0 ? "" : `, clears ${hex(clear)}`}${Number(recursive) === 0 ? "" : " recursively"}`, "Attributes are set before the mount is reachable, so there is no moment without them."),
  remount: init(16, { root: "reads", target: "string", set: "number", clear: "number", recursive: "number" }, ({ target }) => `changes the attributes of ${target}`, "A mount that had to stay writable while it was filled gets its attributes afterwards."),
  setMountPropagation: init(17, { root: "reads", target: "string", propagation: "number", recursive: "number" }, ({ target, propagation }) => `makes ${target} ${propagationName(propagation)}`, "Propagation decides whether later mounts pass between this place and its peers."),
  makeDevice: init(18, { root: "reads", path: "string", mode: "number", device: "number", owner: "number" }, ({ path, device }) => `makes the device ${path} (${deviceName(device)})`, "Programs expect a few harmless devices; a fresh /dev has none."),
  makeLink: init(19, { root: "reads", path: "string", target: "string" }, ({ path, target }) => `links ${path} to ${target}`, "Programs expect /dev/fd, /dev/stdin, /dev/stdout, /dev/stderr and /dev/ptmx."),
  openOwn: init(20, { path: "string", file: "writes" }, ({ path }) => `opens ${path} as the host has it`, "What masks a path must be the host's own null device, not one the container could have replaced (CVE-2025-31133)."),
  maskPath: init(21, { root: "reads", path: "string", null: "reads" }, ({ path }) => `hides ${path}`, "Files of proc and sysfs that tell about or change the host are covered: directories by an empty read-only tmpfs, files by the null device."),
  protectPath: init(22, { root: "reads", path: "string" }, ({ path }) => `makes ${path} read-only`, "Settings of the host's kernel in proc and sysfs must not be written from inside."),
  pivotRoot: init(23, { root: "reads" }, () => "makes the root its own and detaches the host's", "After pivot_root nothing of the host's tree can be named; chroot can be left again."),
  changeRoot: init(24, { root: "reads" }, () => "enters the root by chroot", "Without a mount namespace there is nothing to pivot."),
  makeRootReadonly: init(25, { root: "reads" }, () => "makes the root read-only", "The image stays as it is; only mounts can be written."),
  setHostname: init(26, { name: "string" }, ({ name }) => `names the machine ${name}`, "The uts namespace starts with the host's name."),
  setDomainname: init(27, { name: "string" }, ({ name }) => `names the domain ${name}`, "The uts namespace starts with the host's NIS domain."),
  openProc: init(28, { all: "number", proc: "writes" }, ({ all }) => (Number(all) === 0 ? "opens a proc of its own, processes only" : "opens a whole proc of its own"), "What is written to proc must reach the real proc, not a file that the container put there (CVE-2019-16884, CVE-2025-52881)."),
  writeProc: init(29, { proc: "reads", path: "string", text: "string" }, ({ path, text }) => `writes ${text.trim()} to proc's ${path}`, "Kernel parameters and process attributes are files of proc."),
  closeSlot: init(30, { file: "closes" }, ({ file }) => `closes ${file}`, "A descriptor that is needed no longer must not be there to leak."),
  setLimit: init(31, { resource: "number", soft: "number", hard: "number" }, ({ resource, soft, hard }) => `limits resource ${resource} to ${soft} (at most ${hard})`, "Limits are inherited by everything the container starts."),
  openTerminal: init(32, { root: "reads", rows: "number", columns: "number", master: "writes", terminal: "writes" }, () => "opens a terminal of the container's own devpts", "The other end comes from the master itself, not from a path that could be swapped (CVE-2025-52565)."),
  sendTerminal: init(33, { socket: "closes", master: "closes" }, () => "hands over the terminal's master", "Whoever asked for the terminal holds its other end."),
  attachConsole: init(34, { root: "reads", terminal: "reads" }, () => "mounts the terminal on /dev/console", "Programs write to /dev/console."),
  useTerminal: init(35, { terminal: "closes", uid: "number" }, () => "makes the terminal its controlling terminal and its standard streams", "Job control and Ctrl-C need a controlling terminal."),
  joinKeyring: init(36, { name: "string" }, ({ name }) => `starts the session keyring ${name}`, "Otherwise the container would share the keys of the caller's session."),
  setPersonality: init(37, { persona: "number" }, ({ persona }) => `sets the personality ${hex(persona)}`, "Some programs need another execution domain."),
  setScheduler: init(38, { attributes: "bytes" }, () => "sets its scheduling policy", "Scheduling policy is inherited by everything the container starts."),
  setIoPriority: init(39, { priority: "number" }, ({ priority }) => `sets its I/O priority ${hex(priority)}`, "I/O priority is inherited by everything the container starts."),
  setAffinity: init(40, { mask: "bytes" }, ({ mask }) => (mask.length === 0 ? "takes every processor that its cgroup has" : "binds itself to processors"), "The caller's processors must not stay; those asked for may differ before and after it enters the cgroup."),
  setMemoryPolicy: init(41, { mode: "number", nodes: "bytes", bits: "number" }, () => "sets its NUMA memory policy", "Memory policy is inherited by everything the container starts."),
  keepCapabilities: init(42, {}, () => "keeps its capabilities across the change of user", "The kernel clears them when the user id leaves 0."),
  dropBounding: init(43, { keep: "number" }, ({ keep }) => `drops all capabilities but ${hex(keep)} from the bounding set`, "What is not in the bounding set can never come back, not even through a set-user-id program."),
  setGroups: init(44, { gids: "bytes" }, ({ gids }) => `takes ${gids.length / 4} additional group${gids.length === 4 ? "" : "s"}`, "The caller's groups must not stay (CVE-2023-25173)."),
  setIds: init(45, { uid: "number", gid: "number" }, ({ uid, gid }) => `becomes user ${uid}, group ${gid}`, "Real, effective and saved ids together, so that none can be taken back."),
  setUmask: init(46, { umask: "number" }, ({ umask }) => `sets the umask 0${umask.toString(8)}`, "New files get the permissions that the image's author expects."),
  setCapabilities: init(47, { effective: "number", permitted: "number", inheritable: "number", ambient: "number" }, ({ effective }) => `keeps the capabilities ${hex(effective)}`, "Root without the host's privileges: inheritable stays empty unless asked for (CVE-2022-29162)."),
  checkCapabilities: init(48, { effective: "number", permitted: "number", inheritable: "number", ambient: "number", bounding: "number" }, () => "checks that the kernel holds exactly those capabilities", "A set that was computed wrong is found here, not by an attacker."),
  setNoNewPrivileges: init(49, {}, () => "forbids gaining privileges by execve", "Set-user-id programs and file capabilities lose their effect."),
  loadSeccomp: init(50, { program: "bytes", flags: "number" }, ({ program }) => `loads a system call filter of ${program.length / 8} instructions`, "System calls that a container does not need are refused before the kernel's code for them is reached."),
  changeDirectory: init(51, { path: "string", uid: "number", gid: "number" }, ({ path }) => `works in ${path}`, "The working directory may be closed to the container's user; one that is closed to its root is entered as the user."),
  checkDirectory: init(52, {}, () => "checks that its working directory is inside the root", "A directory of the host that stayed open would be a way out (CVE-2024-21626)."),
  makeWorkingDirectory: init(53, { root: "reads", path: "string" }, ({ path }) => `makes the directory ${path} where it is missing`, "Engines expect a missing working directory to be created."),
  findExecutable: init(54, { candidates: "strings", name: "string" }, ({ candidates }) => `looks for the executable: ${candidates.join(", ")}`, "It is looked up as the container's user, while the creator can still be told."),
  keepDescriptors: init(55, { count: "number" }, ({ count }) => (Number(count) === 0 ? "keeps only the standard streams" : `keeps the standard streams and ${count} more descriptor${Number(count) === 1 ? "" : "s"}`), "A descriptor that leaks is a way out of the root (CVE-2024-21626)."),
  awaitStart: init(56, { listener: "closes", started: "writes" }, () => "waits for start", "The specification separates create from start; nothing of the container runs before."),
  execute: init(57, { arguments: "strings", environment: "strings" }, ({ arguments: words }) => `executes ${words.join(" ")}`, "From here on this is the container's own program."),
  cloneOwn: init(59, { path: "string", recursive: "number", follow: "number", mount: "writes" }, ({ path, recursive }) => `clones the mount${Number(recursive) === 0 ? "" : " tree"} at ${path}`, "Its copy of the host's mounts is all that a container without privileges may clone from."),
  raiseLoopback: init(60, {}, () => "brings the loopback interface up", "A new network namespace starts with it down, and programs expect 127.0.0.1."),
  ownStreams: init(61, { uid: "number" }, ({ uid }) => `gives its standard streams to user ${uid}`, "The user must be able to open /dev/stdout again."),
  enterCgroup: init(
    62,
    { tasks: "closes" },
    ({ tasks }) => `enters the cgroup ${tasks}`,
    "Everything it starts stays in there. A thread that moves itself does not wait for the kernel's lock on all processes, which takes a grace period.",
  ),
  cloneInto: init(
    63,
    { namespaces: "number", cgroup: "reads" },
    ({ namespaces, cgroup }) =>
      `clones the container's first process into the cgroup ${cgroup}${Number(namespaces) === 0 ? "" : `, with new namespaces: ${namespaceNames(namespaces)}`}`,
    "As clone; born in its cgroup of version 2, the process is never outside of its limits.",
  ),
  setOomScore: init(
    64,
    { adjustment: "string" },
    ({ adjustment }) => `adjusts its score for the out-of-memory killer by ${adjustment}`,
    "When memory runs out, the kernel kills the process with the highest score.",
  ),
  loadNotifier: init(65, { program: "bytes", flags: "number", listener: "writes" }, ({ program }) => `loads a system call filter of ${program.length / 8} instructions that asks a listener`, "Some calls are for an agent outside to decide: the kernel stops the caller until the listener's holder has answered."),
  offerListener: init(66, { listener: "reads" }, () => "hands its listener to the host, and waits until it has been passed on", "Only the process that loads a filter gets its listener. The message and its answer are all that comes between the filter and the program."),
  matchDirectory: init(
    67,
    { mount: "reads", root: "reads", target: "string", what: "number" },
    ({ target, what }) => `gives what is to cover ${target} the directory's ${["", "mode", "owner", "mode and owner"][Number(what)]}`,
    "A tmpfs is open to everybody, a new volume root's alone; the directory that it covers says who may use it.",
  ),
  copyUp: init(
    68,
    { mount: "reads", root: "reads", target: "string" },
    ({ target }) => `copies what is in ${target} into what is to cover it`,
    "It starts as what it covers. The copy is made by descriptors and follows no link of the image.",
  ),
  makeUserNamespace: init(
    69,
    { uids: "string", gids: "string", namespace: "writes" },
    ({ uids, gids }) => `makes a user namespace with the uids ${lines(uids)} and gids ${lines(gids)}`,
    "The kernel takes the mapping of a mount only as a user namespace; nobody ever runs in this one.",
  ),
  mapMount: init(
    70,
    { mount: "reads", namespace: "reads", recursive: "number" },
    ({ mount, recursive }) => `maps the ids of ${mount}${Number(recursive) === 0 ? "" : " and the mounts below"}`,
    "Files on the disk keep their owners, and have others as seen through this mount.",
  ),
  reconfigure: init(
    71,
    { root: "reads", target: "string", parameters: "strings" },
    ({ target, parameters }) => `changes the filesystem on ${target} (${parameters.join(", ")})`,
    "Some options belong to the filesystem, whichever mount shows it.",
  ),
  checkProcSource: init(
    72,
    { mount: "reads" },
    () => "checks that it is a proc filesystem",
    "A directory in the place of proc would catch what is meant for the kernel (CVE-2019-16884).",
  ),
  checkDevice: init(
    74,
    { mount: "reads", mode: "number", device: "number" },
    ({ mount, device }) => `checks that ${mount} of the host is the device ${deviceName(device)}`,
    "In a user namespace nobody may make devices; the host's node must be the one that is meant.",
  ),
  attachOrLink: init(
    73,
    { mount: "closes", root: "reads", target: "string", follow: "number", proc: "number" },
    ({ target }) => `mounts it on ${target}, or if it is a link makes the same there`,
    "copy-symlink: a link of the host's means something else inside, so it is not followed outside.",
  ),
  detachMount: init(75, { root: "reads", directory: "string", name: "string" }, ({ directory, name }) => `takes the mount on ${directory === "/" ? "" : directory}/${name} away`, "The directory is looked up inside the root, and a link of that name is not followed: nothing outside can be meant."),
  reopenNull: init(78, { root: "reads", device: "number" }, () => "opens its own /dev/null for the standard streams that are the host's", "An open file keeps the mount in use that it was opened on: one of the host's could be in no checkpoint."),
  standStill: init(
    76,
    {},
    () => "stands still",
    "A container that is made step by step can be looked at between two steps: as it is, nothing else happens meanwhile.",
  ),
  cloneInRoot: init(
    77,
    { root: "reads", path: "string", recursive: "number", follow: "number", mount: "writes" },
    ({ path, recursive }) => `clones the mount${Number(recursive) === 0 ? "" : " tree"} at ${path} of the container`,
    "A source beneath what an earlier mount covers is what that mount shows; it is looked up inside the root, whose links lead nowhere else.",
  ),
  runHook: init(58, { hook: "strings", environment: "strings", state: "reads", timeoutMs: "number" }, ({ hook }) => `runs the hook ${hook[0]}`, "Hooks of these kinds run inside the container's namespaces."),
} as const;

/** A mount that the host prepares; see MountAttributes of mount_setattr(2). */
export interface SourceArgs {
  path: string;
  /** Where the path is a symbolic link: what it leads to, or the link itself. */
  follow: boolean;
  recursive: boolean;
  /** For the whole clone: what a clone of a shared mount mounts would appear on the host. 0: as on the host. */
  propagation: number;
  set: number;
  clear: number;
  recursiveSet: number;
  recursiveClear: number;
  slot: string;
}

/** What an image's container has for a root. */
export interface RootArgs {
  /** Top first. */
  layers: readonly string[];
  /** Directory of the container, where the driver keeps what is written. */
  container: string;
  driver: "overlay" | "aufs" | "vfs";
  /** What it writes is removed at its end, and need not reach the disk before. */
  transient?: true;
}

export interface UnionArgs extends RootArgs {
  /** Whether ids on the disk are those of the container's user namespace. */
  idmapped: boolean;
  slot: string;
}

/** One endpoint on a bridge network; the values are chosen before compiling. */
export interface EndpointArgs {
  container: string;
  bridge: string;
  subnet: string;
  gateway: string;
  address: string;
  mac: string;
  hostName: string;
  ports: readonly { protocol: string; hostAddress: string; hostPort: number; containerPort: number }[];
}

/** A hook of the runtime's namespaces; the first of args is the name, as for execv(3). */
export interface HookArgs {
  kind: string;
  /** Its place among those of its kind, from 0. */
  at: number;
  path: string;
  args: readonly string[];
  /** Without one, that of the runtime. */
  env?: readonly string[];
  /** 0: without limit. */
  timeoutMs: number;
}

/** Steps that the host carries out. */
// biome-ignore format: a table, one row a step
export const HOST_STEPS = {
  startUnit: host<{ unit: string; slice: string; properties: readonly UnitProperty[]; user: boolean }>(({ unit, slice }) => `has systemd make the unit ${unit} in ${slice}, and puts init there`, "Where systemd rules the tree of cgroups, what it has not made or delegated it may move or remove.", { undo: "stops it" }),
  makeCgroup: host<{ path: string; shared?: boolean }>(({ path }) => `makes the cgroup ${path}`, "Limits and accounting belong to a cgroup.", { undo: "removes it" }),
  writeCgroup: host<Omit<ResourceWrite, "from">>(({ directory, file, value }) => (value === undefined ? `takes ${file} of ${directory} from its parent` : `writes ${value} to ${directory}/${file}`), "A controller's files hold its limits."),
  filterDevices: host<{ path: string; program: Uint8Array }>(({ path }) => `attaches a device filter to ${path}`, "On cgroup v2 a small program decides which devices may be opened."),
openCgroup: host<{ path: string; slot: string }>(
    ({ path }) => `opens ${path}`,
    "A process enters a cgroup by a descriptor, so that it can do so itself.",
    { fills: "slot" },
  ),
  openRoot: host<{ path: string; propagation: number; slot: string }>(({ path }) => `clones the mount tree at ${path} as the root`, "The root travels as a descriptor; its path is never looked up again.", { fills: "slot" }),
  prepareRoot: host<RootArgs>(({ layers, driver }) => (driver === "vfs" ? `copies ${count(layers, "layer")} into a root of its own` : `makes an empty upper directory for what it writes (${driver})`), "Containers of one image share its layers; what one of them writes is its own."),
  writeFile: host<{ path: string; text: string }>(({ path, text }) => `writes ${path}: ${JSON.stringify(text.trimEnd())}`, "An image cannot know the container's name and address, nor whom to ask for other names."),
  mountUnion: host<UnionArgs>(({ layers, driver, transient }) => `joins ${count(layers, "layer")} under a private upper directory (${driver}${transient === true && driver === "overlay" ? ", volatile" : ""})`, "The layers are shared and stay untouched; the mount is detached, so the host's mount table never shows it. A volatile one does not have all that is unwritten on that disk written at its end; for containers that are removed then.", { fills: "slot" }),
  openSource: host<SourceArgs>(({ path, set }) => `clones the mount tree at ${path}${(set & 1) === 1 ? ", read-only" : ""}`, "A source path belongs to the host and is looked up there, once.", { fills: "slot" }),
  idmapSource: host<{ mount: string; recursive: boolean }>(({ mount, recursive }) => `maps the ids of ${mount}${recursive ? " and the mounts below" : ""} as in the container's user namespace`, "The files' owners keep their numbers inside, though root inside is somebody else outside."),
  openNamespace: host<{ path: string; slot: string }>(({ path }) => `opens the namespace ${path}`, "A namespace is joined by descriptor.", { fills: "slot" }),
  openContainer: host<{ slot: string; file: string }>(({ file }) => `opens the container's ${file} namespace`, "A process is added to a container by joining its namespaces.", { fills: "slot" }),
  openContainerRoot: host<{ slot: string }>(() => "opens the container's root", "Without a mount namespace of its own, the root is all that tells where it is.", { fills: "slot" }),
  openState: host<{ status: "creating" | "created"; slot: string }>(() => "writes the container's state for its hooks", "A hook reads the state on its standard input.", { fills: "slot" }),
  openConsoleSocket: host<{ path: string; slot: string }>(({ path }) => `connects to the console socket ${path}`, "The engine receives the terminal's master there.", { fills: "slot" }),
  openTurns: host<{ slot: string }>(() => "offers to take the terminal's master itself", "In the foreground the runtime copies between the two terminals.", { fills: "slot" }),
  listen: host<{ slot: string }>(() => "listens on start.sock", "start, in another process, finds the waiting init there.", { fills: "slot" }),
  startInit: host<{ preserved: number }>(() => "starts init", "A small static program with no policy does the rest from inside.", { undo: "kills it" }),
  denySetgroups: host<Record<string, never>>(() => "forbids it to leave its groups", "Who may not give up groups outside must not by way of a user namespace: a file can deny a group what it allows others (CVE-2014-8989)."),
  mapIdsByHelper: host<{ kind: "uid" | "gid"; map: string }>(({ kind, map }) => `has new${kind}map map the ${kind}s: ${map.trim().replaceAll("\n", ", ")}`, "A user may map but its own id; this program of root's gives it those of /etc/subuid and /etc/subgid."),
  mapIds: host<{ kind: "uid" | "gid"; map: string }>(({ kind, map }) => `maps the ${kind}s: ${map.trim().replaceAll("\n", ", ")}`, "Without a map every id in the user namespace is the overflow id."),
  makeEndpoint: host<EndpointArgs>(({ address, bridge }) => `connects it to ${bridge} as ${address}`, "A veth pair is a cable: one end on the bridge, one in the container.", { undo: "removes the link; the last one takes the bridge with it" }),
  moveDevice: host<{ device: string; name: string }>(({ device, name }) => `moves the network device ${device} into its network namespace${name === device ? "" : ` as ${name}`}`, "A network device lives in one namespace. Its permanent addresses go with it; when the namespace ends, the kernel takes the device back."),
  publishPorts: host<EndpointArgs>(({ ports }) => `publishes ${ports.map((port) => `${port.hostPort || "a free port"}→${port.containerPort}/${port.protocol}`).join(", ") || "no ports"} and masquerades what goes out`, "Addresses of the bridge are unknown outside.", { undo: "goes with the link: removes its rules; the last one takes our chains with it" }),
  runHostHook: host<HookArgs>(({ kind, path }) => `runs the ${kind} hook ${path}`, "Hooks of these kinds run in the runtime's namespaces."),
  makeClass: host<{ path: string; schemata: readonly string[]; own: boolean }>(({ path, schemata }) => `makes the class of service ${path}${schemata.length === 0 ? "" : ` with ${schemata.join(", ")}`}`, "A class of service has its own part of the processors' cache and memory bandwidth.", { undo: "removes it where it is the container's own" }),
  enterClass: host<{ path: string }>(({ path }) => `moves the process into the class of service ${path}`, "What it starts stays in there."),
  monitorClass: host<{ path: string }>(({ path }) => `monitors the process in ${path}`, "A monitoring group counts what its processes use of cache and memory bandwidth.", { undo: "removes it" }),
  promiseHooks: host<{ hooks: readonly HookArgs[] }>(({ hooks }) => `promises the poststop hook${hooks.length === 1 ? "" : "s"} ${hooks.map(({ path }) => path).join(", ")}`, "The specification has them run once all is taken back, whether the container lived or could not be made.", { undo: "runs them" }),
  sendListener: host<{ path: string; metadata?: string; status: "creating" | "created" | "running"; listener: string }>(({ path }) => `sends the listener and the container's state to ${path}`, "An agent there decides about the system calls that the filter asks about."),
  confirm: host<Record<string, never>>(() => "hears that init has done it all", "Init waits for this turn, which it reaches by having done every step before."),
  recordCreated: host<Record<string, never>>(() => "records that the container is created", "From here on other commands may see it."),
} as const;

type Init = typeof INIT_STEPS;
type Host = typeof HOST_STEPS;

export type InitStepName = keyof Init;
export type HostStepName = keyof Host;
export type StepName = InitStepName | HostStepName;

export type InitArgs<N extends InitStepName> = Init[N] extends InitDefinition<infer A> ? Arguments<A> : never;
export type HostArgs<N extends HostStepName> = Host[N] extends HostDefinition<infer A> ? A : never;

/** One intention: what is done, with what, and which part of the definition asks for it. */
export type InitStep = { [N in InitStepName]: { name: N; args: InitArgs<N>; from: string } }[InitStepName];
export type HostStep = { [N in HostStepName]: { name: N; args: HostArgs<N>; from: string } }[HostStepName];
export type Step = InitStep | HostStep;

/** The whole, in order. */
export type Plan = readonly Step[];

/** One step in words, without a subject: "names the machine web". */
export function says(step: Step): string {
  const definition: { says: (args: never) => string } = isInit(step) ? INIT_STEPS[step.name] : HOST_STEPS[step.name];
  return definition.says(step.args as never); // name and args come from the same row of the vocabulary
}

/** How the effect of a step is taken back, if it leaves any. */
export function undoOf(step: Step): string | undefined {
  const definition: { undo?: string } = isInit(step) ? {} : HOST_STEPS[step.name];
  return definition.undo;
}

export function isStepName(word: string): word is StepName {
  return word in INIT_STEPS || word in HOST_STEPS;
}

/** Which side carries a step out. */
export function isInit(step: Step): step is InitStep {
  return step.name in INIT_STEPS;
}

/** Whether init waits there for the host: at a turn, until its listener has been passed on, or to be looked at. */
export function isTurn(step: Step): boolean {
  return step.name === "turn" || step.name === "offerListener" || step.name === "standStill";
}

/** The slot a host step fills, if any. */
export function filledSlot(step: HostStep): string | undefined {
  const definition: { fills?: string } = HOST_STEPS[step.name];
  const slot: unknown = definition.fills === undefined ? undefined : Reflect.get(step.args, definition.fills);
  return typeof slot === "string" ? slot : undefined;
}

const NAMESPACE_NAMES: readonly [number, string][] = [
  [0x10000000, "user"],
  [0x20000000, "pid"],
  [0x00020000, "mount"],
  [0x40000000, "network"],
  [0x04000000, "uts"],
  [0x08000000, "ipc"],
  [0x02000000, "cgroup"],
  [0x00000080, "time"],
];

function namespaceNames(flags: number | bigint): string {
  return NAMESPACE_NAMES.filter(([flag]) => (Number(flags) & flag) !== 0)
    .map(([, name]) => name)
    .join(", ");
}

function propagationName(propagation: number | bigint): string {
  return (
    { [1 << 17]: "unbindable", [1 << 18]: "private", [1 << 19]: "slaves of the host's", [1 << 20]: "shared" }[
      Number(propagation)
    ] ?? hex(propagation)
  );
}
