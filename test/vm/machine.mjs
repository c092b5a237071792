// A machine of its own for one command: an emulated guest with pure cgroup v2, AppArmor and, if wanted, systemd.
import { execFileSync, spawn } from "node:child_process";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "../../rootfs-fixtures/build.mjs";
import { image } from "./image.mjs";

const project = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const QEMU = "qemu-system-x86_64";
const NEEDED = [QEMU, "mmdebstrap", "mke2fs", "setpriv"];
const MEMORY_MB = 2048;
/** How much longer every deadline of a test is in the guest. */
const PATIENCE = 10;

/** What of the project is in the guest, beneath the same path, as the fixtures have theirs in them. */
const TAKEN = [
  ...["package.json", "tsconfig.json", "vitest.config.ts", ".ci", "src", "native", "test", "rootfs-fixtures"],
  ...["dist", "build/Release", "node_modules"],
];
/** What builds and checks the project, and is not needed to run its tests. */
const LEFT = ["node_modules/@biomejs", "node_modules/@oven", "node_modules/@typescript", "dist/test"];

/** Signs of a kernel that went wrong by itself, and whose results are worth nothing. */
const OOPS = /BUG: |Oops|general protection fault|Kernel panic|soft lockup/;

/** Why no guest can be made or started here, in one line: it says nothing about the project. */
export class Unavailable extends Error {}

/** Which of the programs that make and run the guest are not here. */
export function missingPrograms() {
  const directories = (process.env.PATH ?? "").split(delimiter);
  return NEEDED.filter((name) => !directories.some((directory) => isExecutable(join(directory, name))));
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * The guest's disk and kernels, made if they are missing.
 * @throws Unavailable
 */
export function makeImage() {
  return make("the guest's disk", () => image((line) => console.error(`vm: ${line}`)));
}

function make(what, work) {
  try {
    return work();
  } catch (error) {
    throw new Unavailable(`${what} could not be made: ${reasonOf(error)}`, { cause: error });
  }
}

/** Of a program that failed what it said of errors, which is more than that it failed. */
function reasonOf({ message, stderr }) {
  const lines = `${stderr ?? ""}`.split("\n").filter((line) => line.trim() !== "");
  const errors = lines.filter((line) => /^(E|error): /i.test(line));
  return (errors[0] ?? lines.at(-1) ?? message.split("\n")[0]).trim();
}

/**
 * Runs a command in a guest, in the project's directory.
 * @param words the command and its arguments
 * @param output where what it writes goes; it stays open
 * @param kernel "6.12" or "6.1"
 * @param systemd whether systemd is the first process; else nothing else runs
 * @param results where the files go that the command leaves in dist/test
 * @returns its exit status
 * @throws Unavailable if there was no machine
 * @throws Error if it did not live to the command's end, or not in good health
 */
export async function runInGuest(
  words,
  { output = process.stdout, kernel = "6.12", systemd = false, results, timeoutS = 1800 } = {},
) {
  const { disk, kernels } = makeImage();
  if (kernels[kernel] === undefined)
    throw new Error(`no kernel ${kernel}: there are ${Object.keys(kernels).join(", ")}`);
  const directory = mkdtempSync(join(tmpdir(), "caisson-vm-"));
  try {
    const files = Object.fromEntries(
      ["project", "scratch", "console", "status", "results"].map((name) => [name, join(directory, name)]),
    );
    // the guest has no compiler
    build();
    make("the project's disk", () => makeProjectDisk(files.project, join(directory, "tree"), words));
    writeFileSync(files.scratch, "");
    truncateSync(files.scratch, 1 << 28);
    const ended = await boot(qemuWords({ disk, vmlinuz: kernels[kernel], systemd, files }), output, timeoutS);
    const said = existsSync(files.console) ? readFileSync(files.console, "latin1") : "";
    const status = existsSync(files.status) ? readFileSync(files.status, "utf8").trim() : "";
    const tail = said.split("\n").slice(-40).join("\n");
    if (ended !== undefined && said === "") throw new Unavailable(`no guest could be started: ${ended}`);
    if (ended !== undefined) throw new Error(`the guest ${ended}; its console ends:\n${tail}`);
    if (OOPS.test(said)) throw new Error(`the guest's kernel is not well:\n${aroundOops(said)}`);
    if (!/^\d+$/.test(status)) throw new Error(`the guest has left no status; its console ends:\n${tail}`);
    if (results !== undefined && statSync(files.results).size > 0) {
      mkdirSync(results, { recursive: true });
      execFileSync("tar", ["-C", results, "--no-same-owner", "-xf", files.results]);
    }
    return Number(status);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A file system with the project, as it is built now, and the command. */
function makeProjectDisk(disk, tree, words) {
  mkdirSync(tree);
  for (const name of TAKEN) {
    if (!existsSync(join(project, name))) continue;
    mkdirSync(dirname(join(tree, name)), { recursive: true });
    execFileSync("cp", ["-aH", join(project, name), join(tree, name)]);
  }
  for (const name of LEFT) rmSync(join(tree, name), { recursive: true, force: true });
  writeFileSync(
    join(tree, "environment"),
    `PROJECT=${quote(project)}\nexport CAISSON_GUEST=1 CAISSON_PATIENCE=${PATIENCE}\n`,
  );
  writeFileSync(join(tree, "command"), `exec ${words.map(quote).join(" ")}\n`);
  const features = ["-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1"];
  execFileSync("mke2fs", ["-q", "-F", ...features, "-d", tree, disk, "2G"]);
  rmSync(tree, { recursive: true });
}

function quote(word) {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

function qemuWords({ disk, vmlinuz, systemd, files }) {
  const append = [
    ...["root=/dev/nvme0n1 rootwait rw console=ttyS0 panic=-1 mitigations=off net.ifnames=0"],
    ...["cgroup_no_v1=all apparmor=1 security=apparmor"],
    systemd
      ? "init=/lib/systemd/systemd systemd.wants=caisson-guest.service systemd.show_status=0"
      : "init=/sbin/caisson-guest",
  ];
  const port = (name, target) => [
    ...["-chardev", target],
    ...["-device", `virtserialport,chardev=${name},name=${name}`],
  ];
  // one device of each kind: they are found in any order
  const drive = (name, path) => ["-drive", `if=none,id=${name},file=${path},format=raw,snapshot=on,cache=unsafe`];
  return [
    // Both processors on one thread: with one each, QEMU 7.2 now and then runs a translation of what another has just
    // written over, and the kernel, which patches itself while it runs, stops with "Oops: int3".
    ...["-accel", "tcg,thread=single,tb-size=256", "-smp", "2", "-m", String(MEMORY_MB)],
    // with this instruction emulated, programs crash at random
    ...["-cpu", "max,-cx16"],
    ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"],
    ...["-kernel", vmlinuz, "-append", append.join(" ")],
    ...["-serial", `file:${files.console}`],
    ...[...drive("root", disk), "-device", "nvme,drive=root,serial=root"],
    ...[...drive("project", files.project), "-device", "virtio-blk-pci,drive=project,serial=project"],
    ...[...drive("scratch", files.scratch), "-device", "virtio-blk-pci,drive=scratch,serial=scratch"],
    ...["-device", "virtio-serial-pci", "-object", "rng-random,id=random,filename=/dev/urandom"],
    ...["-device", "virtio-rng-pci,rng=random"],
    ...port("output", "stdio,id=output,signal=off"),
    ...port("status", `file,id=status,path=${files.status}`),
    ...port("results", `file,id=results,path=${files.results}`),
  ];
}

/** @returns how it ended, if not well */
function boot(words, output, timeoutS) {
  return new Promise((resolve, reject) => {
    // The guest waits with its output while our end of the input is closed; ours stays open, and blocking.
    const machine = spawn("setpriv", ["--pdeathsig", "KILL", QEMU, ...words], { stdio: ["pipe", "pipe", "pipe"] });
    machine.stdout.pipe(output, { end: false });
    let complaint = "";
    machine.stderr.on("data", (text) => {
      complaint += text;
    });
    let overdue = false;
    const timer = setTimeout(() => {
      overdue = true;
      machine.kill("SIGKILL");
    }, timeoutS * 1000);
    machine.once("error", reject);
    machine.once("close", (status, signal) => {
      clearTimeout(timer);
      if (overdue) resolve(`was not done after ${timeoutS} s`);
      else resolve(status === 0 ? undefined : `ended with ${signal ?? status}: ${complaint.trim()}`);
    });
  });
}

function aroundOops(said) {
  const lines = said.split("\n");
  const at = lines.findIndex((line) => OOPS.test(line));
  return lines.slice(Math.max(0, at - 2), at + 30).join("\n");
}
