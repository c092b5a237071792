// What the build is made of, as one digest: a build is up to date when its stamp says the same.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const SOURCES = [
  "src",
  "native",
  "binding.gyp",
  "tsconfig.json",
  "package-lock.json",
  ".ci/build.mjs",
  ".ci/generate.mjs",
];
const RESULTS = [
  "dist/bin/caisson",
  "dist/bin/caisson-runtime",
  "dist/js/cli/main.js",
  "dist/native/init",
  "build/Release/caisson.node",
];

function* filesOf(root, path) {
  const entries = readdirSync(join(root, path), { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    if (entry.isDirectory()) yield* filesOf(root, join(path, entry.name));
    else yield join(path, entry.name);
  }
}

/** Digest of every source, by name and content. */
export function digestOfSources(root) {
  const hash = createHash("sha256").update(process.arch);
  for (const source of SOURCES) {
    const files = source.includes(".") ? [source] : [...filesOf(root, source)];
    for (const file of files)
      hash.update(`${file}\0`).update(
        createHash("sha256")
          .update(readFileSync(join(root, file)))
          .digest(),
      );
  }
  return hash.digest("hex");
}

const stampOf = (root) => join(root, "dist/.sources");

/** Whether the build there is was made of these sources. */
export function isBuilt(root) {
  const stamp = stampOf(root);
  return (
    RESULTS.every((path) => existsSync(join(root, path))) &&
    existsSync(stamp) &&
    readFileSync(stamp, "utf8") === digestOfSources(root)
  );
}

/** Says what a build was made of; the digest is taken before it starts. */
export function stampBuild(root, digest) {
  writeFileSync(stampOf(root), digest);
}
