// npm start: sets up, then shows what Caisson does with a web server in a container. Every command is printed as run.
import { spawnSync } from "node:child_process";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { setUp } from "./setup.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const caisson = join(root, "dist/bin/caisson");
const NAME = "quickstart";

function show(text) {
  console.log(`\n\x1b[1m${text}\x1b[0m`);
}

/** Runs the engine as a person would; @returns its exit status */
function run(...words) {
  console.log(`$ caisson ${words.join(" ")}`);
  return spawnSync(caisson, words, { stdio: "inherit" }).status;
}

function demand(...words) {
  if (run(...words) !== 0) throw new Error(`caisson ${words[0]} failed`);
}

/** The wanted port, or another one when somebody has it. */
function freePort(wanted) {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", (error) => (wanted === 0 ? reject(error) : resolve(freePort(0))));
    server.listen(wanted, () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** The page, once the server in the container is up. */
async function fetchPage(url) {
  const deadline = Date.now() + 10_000;
  for (;;) {
    try {
      const answer = await fetch(url);
      return await answer.text();
    } catch (error) {
      if (Date.now() > deadline) throw new Error(`nothing answers at ${url}`, { cause: error });
      await sleep(50);
    }
  }
}

await setUp();
const port = await freePort(8080);
const limits = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"];
const container = [
  ...limits,
  "-p",
  `${port}:8080`,
  "caisson/quickstart",
  "httpd",
  "-f",
  "-p",
  "8080",
  "-h",
  "/srv/www",
];

show("1. An image of two layers goes into the store, each layer once.");
demand("load", join(root, "rootfs-fixtures/.build/images/quickstart.docker.tar"));

show("2. How a container would be made of it: the plan, step by step. Nothing runs.");
demand("explain", ...container);

spawnSync(caisson, ["rm", "-f", NAME], { stdio: "ignore" }); // of an earlier start that was interrupted
try {
  show("3. The same container for real: half a processor, 64 MiB, 50 processes, a network, a published port.");
  demand("run", "-d", "--name", NAME, ...container);
  show("4. The host reaches it, and it sees only itself.");
  console.log(`$ curl http://127.0.0.1:${port}/`);
  console.log((await fetchPage(`http://127.0.0.1:${port}/`)).trimEnd());
  demand("exec", NAME, "ps");
  show("5. How it was made: the plan again, with what the kernel answered to every step.");
  demand("trace", NAME);
} finally {
  show("6. It ends, and leaves nothing behind.");
  run("stop", "-t", "1", NAME);
  run("rm", NAME);
}
