// npm run bench: Caisson against its peers, interleaved in one run; medians and minimums, quoted as ratios.
// It works in network and mount namespaces of its own, with daemons of its own, and leaves nothing behind.
import { spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { cpus, release, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { openProcess, reap, spawn as startProcess } from "../../dist/js/kernel/process.js";
import { build } from "../../rootfs-fixtures/build.mjs";

const project = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const INSIDE = "CAISSON_BENCH_INSIDE";
if (process.argv[2] === "trace") {
  await import("./trace.mjs");
  process.exit();
}
const rounds = Number(process.argv[2] ?? 40);

if (process.env[INSIDE] === undefined) {
  // a real image is made out here, where Debian's packages can be reached
  const place = mkdtempSync(join(tmpdir(), "caisson-bench-"));
  try {
    const debian = join(place, "debian.tar");
    const made = spawnSync("mmdebstrap", ["--variant=minbase", "bookworm", debian], { encoding: "utf8" });
    if (made.status !== 0)
      console.log(`no Debian image to load: ${made.error?.message ?? made.stderr.trim().split("\n").at(-1)}`);
    const words = [
      "--net",
      "--mount",
      "--propagation",
      "private",
      process.execPath,
      fileURLToPath(import.meta.url),
      String(rounds),
    ];
    const env = { ...process.env, [INSIDE]: made.status === 0 ? debian : "none" };
    process.exitCode = spawnSync("unshare", words, { stdio: "inherit", env }).status ?? 1;
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
  process.exit();
}

const work = mkdtempSync(join(tmpdir(), "caisson-bench-"));
const fixtures = build(() => undefined);
const image = fixtures.images.quickstart;
const has = (program) => spawnSync("sh", ["-c", 'command -v "$1"', "sh", program]).status === 0;

const nothing = openSync("/dev/null", "r+");
const errors = openSync(join(work, "errors"), "w+");
const paths = new Map();

/** Where a program is: looked up once, so that no shell is timed. */
function pathOf(program) {
  if (program.includes("/")) return program;
  if (!paths.has(program))
    paths.set(program, spawnSync("sh", ["-c", 'command -v "$1"', "sh", program], { encoding: "utf8" }).stdout.trim());
  return paths.get(program);
}

/**
 * Runs a command once, by vfork: Node's own way of starting processes takes milliseconds, which would hide differences.
 * Its exit status must be 0: a peer that fails fast is not fast. @returns milliseconds
 */
function time([program, ...args], { cwd = "/" } = {}) {
  const path = pathOf(program);
  const environment = Object.entries(process.env).map(([name, value]) => `${name}=${value}`);
  process.chdir(cwd);
  ftruncateSync(errors);
  const started = process.hrtime.bigint();
  const pidfd = openProcess(startProcess(path, [program, ...args], environment, [nothing, nothing, errors]));
  const { status } = reap(pidfd);
  const took = Number(process.hrtime.bigint() - started) / 1e6;
  closeSync(pidfd);
  if (status !== 0)
    throw new Error(`${program} ${args.join(" ")} ended with ${status}: ${readFileSync(join(work, "errors"), "utf8")}`);
  return took;
}

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

/** Times contestants in turn, A B C A B C …; the first is Caisson. `before` is not timed. */
function compare(title, contestants, count, before = () => undefined) {
  const names = Object.keys(contestants);
  const times = new Map(names.map((name) => [name, []]));
  for (let round = -2; round < count; round++)
    for (const name of names) {
      before(name, round);
      const took = time(contestants[name].command(round), contestants[name].options);
      if (round >= 0) times.get(name).push(took);
    }
  const [own] = names;
  console.log(`\n${title} (${count} rounds)`);
  for (const name of names) {
    const list = times.get(name);
    const ratio = (pick) => (pick(times.get(own)) / pick(list)).toFixed(2);
    const minimum = (values) => Math.min(...values);
    console.log(
      `  ${name.padEnd(26)} median ${median(list).toFixed(1).padStart(7)} ms   min ${minimum(list).toFixed(1).padStart(7)} ms` +
        (name === own ? "" : `   ${own} takes ${ratio(median)} of its median, ${ratio(minimum)} of its minimum`),
    );
  }
}

function version(program, ...args) {
  return has(program)
    ? spawnSync(program, args, { encoding: "utf8" }).stdout.split("\n")[0]
    : `${program}: not installed`;
}

function runtimes() {
  const bundle = join(work, "bundle");
  mkdirSync(bundle);
  cpSync(fixtures.roots.minimal, join(bundle, "rootfs"), { recursive: true });
  const runtime = join(project, "dist/bin/caisson-runtime");
  time(["runc", "spec"], { cwd: bundle });
  const config = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8"));
  config.process.terminal = false;
  config.process.args = ["/bin/true"];
  // some versions of crun know only the versions of the specification up to their own
  config.ociVersion = "1.0.0";
  writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
  const options = { cwd: bundle };
  const contestants = {
    "caisson-runtime run": {
      command: (round) => [runtime, "--root", join(work, "run"), "run", `bench${round}`],
      options,
    },
  };
  if (has("runc"))
    contestants["runc run"] = {
      command: (round) => ["runc", "--root", join(work, "runc"), "run", `bench${round}`],
      options,
    };
  compare("a static true on runc spec's bundle", contestants, rounds);
  if (!has("crun")) return;
  // crun refuses version 1 with a version 2 hierarchy beside it: for its own comparison that is out of sight
  const hidden = existsSync("/sys/fs/cgroup/unified") && spawnSync("umount", ["/sys/fs/cgroup/unified"]).status === 0;
  const { "caisson-runtime run": own } = contestants;
  compare(
    `the same against crun${hidden ? ", without the version 2 hierarchy" : ""}`,
    {
      "caisson-runtime run": own,
      "crun run": { command: (round) => ["crun", "--root", join(work, "crun"), "run", `bench${round}`], options },
    },
    rounds,
  );
  if (hidden) spawnSync("mount", ["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup/unified"]);
}

/** A dockerd of our own. @returns its client's first words, and how to end it */
async function startDocker() {
  const socket = join(work, "docker.sock");
  const daemon = spawn(
    "dockerd",
    [
      "--data-root",
      join(work, "docker"),
      "--exec-root",
      join(work, "docker-exec"),
      "-p",
      join(work, "docker.pid"),
      "-H",
      `unix://${socket}`,
      "--log-level",
      "error",
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  const client = ["docker", "-H", `unix://${socket}`];
  for (let tries = 0; spawnSync(client[0], [...client.slice(1), "version"]).status !== 0; tries++) {
    if (tries === 150 || daemon.exitCode !== null) throw new Error("dockerd did not start");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return {
    client,
    end: async () => {
      daemon.kill("SIGTERM");
      await new Promise((resolve) => daemon.once("exit", resolve));
    },
  };
}

async function engines() {
  spawnSync("ip", ["link", "set", "lo", "up"]);
  // a default route, as every host has: podman's bridge wants one
  for (const words of [
    "link add bench0 type dummy",
    "addr add 192.0.2.1/24 dev bench0",
    "link set bench0 up",
    "route add default dev bench0",
  ])
    spawnSync("ip", words.split(" "));
  const own = [join(project, "dist/bin/caisson"), "--data", join(work, "data"), "--root", join(work, "run")];
  time([...own, "load", image.docker]);
  const podman = [
    "podman",
    "--root",
    join(work, "podman"),
    "--runroot",
    join(work, "podman-run"),
    "--cgroup-manager",
    "cgroupfs",
    "--runtime",
    "runc",
  ];
  const docker = has("dockerd") ? await startDocker() : undefined;
  try {
    if (docker) time([...docker.client, "load", "-i", image.docker]);
    if (has("podman")) time([...podman, "load", "-i", image.docker]);
    const limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    for (const [title, ports] of [
      ["run --rm IMAGE true, bridge network", () => []],
      ["the same with a published port", () => ["-p", "18080:80"]],
    ]) {
      const contestants = {
        "caisson run": { command: () => [...own, "run", "--rm", ...ports(), "caisson/quickstart", "true"] },
      };
      if (docker)
        contestants["docker run"] = {
          command: () => [...docker.client, "run", "--rm", ...ports(), "caisson/quickstart", "true"],
        };
      if (has("podman"))
        contestants["podman run"] = {
          command: () => [...podman, "run", "--rm", ...limits, ...ports(), "localhost/caisson/quickstart", "true"],
        };
      compare(title, contestants, Math.ceil(rounds / 4));
    }
    await loads(own, docker, podman);
  } finally {
    await docker?.end();
  }
}

/** Loading a real image; each time into a new place, because deleted blocks make the next extraction slow. */
async function loads(own, docker, podman) {
  const root = process.env[INSIDE];
  if (root === "none") return;
  const archive = join(work, "debian.docker.tar");
  const { archive: tar, dockerFiles } = await import("../../rootfs-fixtures/build.mjs");
  const layer = readFileSync(root);
  writeFileSync(
    archive,
    tar(dockerFiles([{ name: "bench/debian:latest", config: { Cmd: ["/bin/sh"] }, layers: [layer] }])),
  );
  time(["gzip", "-k", "-1", root]);
  let round = 0;
  const place = (name) => {
    const path = join(work, `${name}-${round++}`);
    mkdirSync(path);
    return path;
  };
  const contestants = {
    "caisson load": { command: () => [own[0], "--data", place("load"), "--root", join(work, "run"), "load", archive] },
    "tar -xzf": { command: () => ["tar", "-xzf", `${root}.gz`, "-C", place("tar")] },
  };
  if (docker) contestants["docker load"] = { command: () => [...docker.client, "load", "-i", archive] };
  if (has("podman")) contestants["podman load"] = { command: () => [...podman, "load", "-i", archive] };
  compare("load of a Debian image", contestants, 5, (name) => {
    if (docker && name === "docker load")
      spawnSync(docker.client[0], [...docker.client.slice(1), "rmi", "-f", "bench/debian"]);
    if (name === "podman load") spawnSync(podman[0], [...podman.slice(1), "rmi", "-f", "localhost/bench/debian"]);
  });
}

console.log(`Linux ${release()}, ${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}`);
for (const line of [
  version("runc", "--version"),
  version("crun", "--version"),
  version("dockerd", "--version"),
  version("podman", "--version"),
  version("tar", "--version"),
])
  console.log(line);
try {
  runtimes();
  await engines();
} finally {
  spawnSync("umount", ["-R", "-l", work]);
  for (let tries = 0; tries < 5; tries++)
    try {
      rmSync(work, { recursive: true, force: true });
      break;
    } catch {
      spawnSync("sh", [
        "-c",
        'for m in $(grep -o "$1[^ ]*" /proc/self/mountinfo); do umount -l "$m"; done',
        "sh",
        work,
      ]);
    }
}
