// npm run format: TypeScript and JSON by Biome, C by clang-format.
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { nativeFiles } from "./lint.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const commands = [
  [join(root, "node_modules/.bin/biome"), "format", "--write"],
  ["clang-format", "-i", ...nativeFiles()],
];
for (const [command, ...args] of commands)
  if (spawnSync(command, args, { cwd: root, stdio: "inherit" }).status !== 0) process.exitCode = 1;
