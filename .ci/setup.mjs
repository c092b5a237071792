// Makes a fresh clone ready: Debian's packages, npm's, the build, the fixtures. Does only what is missing, and says what.
// Uses nothing but Node itself: there may be no node_modules yet.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { isBuilt } from "./sources.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const NODE = [20, 19];
const DEBIAN = 12;

function fail(message) {
  console.error(`setup: ${message}`);
  process.exit(1);
}

/** Runs a command that is to succeed. */
function run(command, args, options = {}) {
  console.log(`setup: ${[command, ...args].join(" ")}`);
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit", ...options });
  if (status !== 0) fail(`${command} failed${error === undefined ? "" : `: ${error.message}`}`);
}

function checkMachine() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major < NODE[0] || (major === NODE[0] && minor < NODE[1]))
    fail(`Node ${NODE.join(".")} or newer is needed, this is ${process.versions.node}`);
  const release = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
  const version = /^VERSION_ID="?(\d+)/m.exec(release)?.[1];
  // Debian testing and unstable have no number
  if (!/^ID="?debian"?$/m.test(release) || (version !== undefined && Number(version) < DEBIAN))
    fail(`Debian ${DEBIAN} or newer is needed: packages are installed by its names`);
  if (process.getuid() !== 0) fail("root is needed: to install packages, and to make containers");
}

/** One entry a line of the list: the package, and others that will do as well. */
function wantedPackages(list) {
  const lines = readFileSync(join(root, ".ci", list), "utf8").split("\n");
  return lines.filter((line) => line !== "" && !line.startsWith("#")).map((line) => line.split(" | "));
}

/** A package may not start its daemon: dockerd would change the firewall's rules (invoke-rc.d's policy). */
function withoutDaemons(work) {
  const policy = "/usr/sbin/policy-rc.d";
  if (existsSync(policy)) return work();
  writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  const remove = () => rmSync(policy, { force: true });
  // a failure ends the process
  process.once("exit", remove);
  work();
  remove();
}

function installPackages(list) {
  const wanted = wantedPackages(list);
  // exit status 1 only says that some are unknown
  const query = ["-W", "-f", "${Package} ${db:Status-Status}\n", ...wanted.flat()];
  const { stdout } = spawnSync("dpkg-query", query, { encoding: "utf8" });
  const installed = new Set([...(stdout ?? "").matchAll(/^(\S+) installed$/gm)].map(([, name]) => name));
  const missing = wanted.filter((names) => !names.some((name) => installed.has(name))).map(([name]) => name);
  if (missing.length === 0) return;
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  run("apt-get", ["update"], { env });
  withoutDaemons(() => run("apt-get", ["install", "--yes", "--no-install-recommends", ...missing], { env }));
}

/** npm leaves beside the modules what it has installed, in the form of the lock file. */
function hasModules() {
  const path = join(root, "node_modules/.package-lock.json");
  if (!existsSync(path)) return false;
  const { packages: wanted } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  const { packages: found } = JSON.parse(readFileSync(path, "utf8"));
  return (
    // what is optional may be meant for other machines
    Object.entries(wanted).every(([name, { integrity, optional }]) =>
      name === "" ? true : found[name] === undefined ? optional === true : found[name].integrity === integrity,
    ) && Object.keys(found).every((name) => name in wanted)
  );
}

/** Everything that npm start and npm test need; and, if asked for, the engines that drive the runtime. */
export async function setUp({ clients = false } = {}) {
  checkMachine();
  installPackages("debian-packages.txt");
  if (clients) installPackages("debian-clients.txt");
  // no package of ours needs its install script
  if (!hasModules()) run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
  if (!isBuilt(root)) run(process.execPath, [".ci/build.mjs"]);
  const { build } = await import("../rootfs-fixtures/build.mjs");
  build((line) => console.log(`setup: ${line}`));
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await setUp();
  console.log("setup: everything is there");
}
