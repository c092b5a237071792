// npm run build: native programs, addon, JavaScript, and the single-file executable under its two names.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { digestOfSources, stampBuild } from "./sources.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const bin = (name) => join(root, "node_modules", ".bin", name);

function run(command, ...args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (status !== 0) {
    console.error(`build: ${command} ${args.join(" ")} failed${error ? `: ${error.message}` : ""}`);
    process.exit(1);
  }
}

/** Where Node's own headers are installed, if they are. */
function nodeDirectory() {
  const prefix = dirname(dirname(process.execPath));
  return [prefix, "/usr", "/usr/local"].find((path) => existsSync(join(path, "include/node/common.gypi")));
}

const digest = digestOfSources(root);
const headers = nodeDirectory();
run(bin("tsc"), "-p", ".");
run(process.execPath, ".ci/generate.mjs", "--check");
run("sh", "native/build.sh");
if (headers !== undefined) {
  const step = existsSync(join(root, "build/Makefile")) ? "build" : "rebuild";
  run(bin("node-gyp"), "--silent", step, `--nodedir=${headers}`);
} else {
  // Node-API's headers are all that the addon needs; node-gyp wants the rest of Node's, and would fetch them.
  const includes = ["node-api-headers/include", "node-addon-api"].map(
    (path) => `-I${join(root, "node_modules", path)}`,
  );
  const defines = ["-DNAPI_VERSION=8", "-DNODE_ADDON_API_DISABLE_CPP_EXCEPTIONS"];
  const given = (process.env.CPPFLAGS ?? "").split(" ").filter((word) => word !== "");
  const flags = [...given, "-std=c++17", "-O2", "-fPIC", "-shared", "-fno-exceptions", "-Wl,-z,relro,-z,now"];
  mkdirSync(join(root, "build/Release"), { recursive: true });
  run("g++", ...flags, ...defines, ...includes, "native/addon/addon.cc", "-o", "build/Release/caisson.node");
}

// The executable carries addon, init and monitor. The addon goes through a file without a name: bun would unpack it to
// $TMPDIR, where somebody else's file could lie in its place.
mkdirSync(join(root, "dist/bin"), { recursive: true });
const entry = join(root, "dist/js/bundled.js");
writeFileSync(entry, 'import "./embedded.js";\nimport "./cli/main.js";\n');
writeFileSync(
  join(root, "dist/js/embedded.js"),
  `import addon from "../../build/Release/caisson.node" with { type: "file" };
import init from "../native/init" with { type: "file" };
import monitor from "../native/monitor" with { type: "file" };
import { closeSync, constants, openSync, readFileSync, writeSync } from "node:fs";
import { provideNativeFiles } from "./kernel/addon.js";

const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

function load(module, path) {
  const bytes = readFileSync(path);
  let fd;
  try {
    fd = openSync("/dev/shm", O_TMPFILE | constants.O_EXCL | constants.O_RDWR, 0o700);
  } catch {
    return loadFromMemory(module, bytes);
  }
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
    process.dlopen(module, "/proc/self/fd/" + fd);
  } catch {
    loadFromMemory(module, bytes); // it is full, or mounted noexec
  } finally {
    closeSync(fd);
  }
}

function loadFromMemory(module, bytes) {
  const { dlopen, ptr } = require("bun:ffi"); // its own start takes longer than all of the above
  const libc = dlopen("libc.so.6", {
    memfd_create: { args: ["ptr", "u32"], returns: "i32" },
    write: { args: ["i32", "ptr", "u64"], returns: "i64" },
    close: { args: ["i32"], returns: "i32" },
  });
  const fd = libc.symbols.memfd_create(ptr(Buffer.from("caisson-addon\\0")), 1);
  for (let done = 0; fd >= 0 && done < bytes.length; ) {
    const wrote = Number(libc.symbols.write(fd, ptr(bytes, done), bytes.length - done));
    if (wrote <= 0) break;
    done += wrote;
  }
  if (fd < 0) throw new Error("cannot load the addon: memfd_create is refused");
  process.dlopen(module, "/proc/self/fd/" + fd);
  libc.symbols.close(fd);
}

provideNativeFiles({ addon, init, monitor, load });
`,
);
const bun = join(root, "node_modules/@oven", `bun-linux-${process.arch === "arm64" ? "aarch64" : "x64"}`, "bin/bun");
run(
  bun,
  "build",
  "--compile",
  "--bytecode",
  // a command reads the code of that command alone
  "--splitting",
  "--format=esm",
  // a command lives for milliseconds: it runs its code once, which is not worth compiling; src/image/loading.ts has loops
  "--compile-jit-policy=1000",
  "--minify",
  "--no-compile-autoload-bunfig",
  "--no-compile-autoload-dotenv",
  "--no-compile-autoload-tsconfig",
  "--no-compile-autoload-package-json",
  entry,
  "--outfile",
  "dist/bin/caisson",
);
rmSync(join(root, "dist/bin/caisson-runtime"), { force: true });
symlinkSync("caisson", join(root, "dist/bin/caisson-runtime"));
stampBuild(root, digest);
