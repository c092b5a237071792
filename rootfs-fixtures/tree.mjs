/** Manifest entries (README.md) → a directory, or → members for a layer. */
import { execFileSync } from "node:child_process";
import { chmodSync, lchownSync, linkSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

/**
 * Entries with what they refer to put in: "from" becomes content, "applets" one link a busybox command, and
 * {canary} in a target the path given. sources maps the names of programs to the files they are.
 */
export function resolveEntries(entries, { sources, canary = "" }) {
  return entries.flatMap((entry) => {
    if (entry.type === "applets") return applets(entry, sources.busybox);
    const resolved = { ...entry };
    if (entry.type === "file") resolved.content = contentOf(entry, sources);
    if (entry.target !== undefined) resolved.target = entry.target.replaceAll("{canary}", canary);
    return [resolved];
  });
}

function contentOf({ from, text = "", hex }, sources) {
  if (from !== undefined) return readFileSync(sources[from]);
  return hex === undefined ? Buffer.from(text) : Buffer.from(hex, "hex");
}

function applets({ path }, busybox) {
  const names = execFileSync(busybox, ["--list"], { encoding: "utf8" }).split("\n").sort();
  return names
    .filter((name) => name !== "" && name !== "busybox")
    .map((name) => ({ path: `${path}/${name}`, type: "symlink", target: "busybox" }));
}

/** Makes the entries below directory, which is created; owners are set only by root. */
export function makeTree(directory, entries) {
  mkdirSync(directory, { recursive: true });
  for (const entry of entries) {
    const path = join(directory, entry.path);
    mkdirSync(dirname(path), { recursive: true });
    if (entry.type === "directory") mkdirSync(path, { recursive: true });
    else if (entry.type === "file") writeFileSync(path, entry.content, { flag: "wx" });
    else if (entry.type === "symlink") symlinkSync(entry.target, path);
    else if (entry.type === "hardlink") linkSync(join(directory, entry.target), path);
    else if (entry.type === "fifo") execFileSync("mkfifo", [path]);
    else throw new Error(`cannot make ${entry.path}: a root has no entry of type ${entry.type}`);
    if (entry.uid !== undefined && process.getuid() === 0) lchownSync(path, entry.uid, entry.gid ?? entry.uid);
    // After chown, which clears the setuid bit; and explicitly, whatever the umask is.
    if (entry.type !== "symlink") chmodSync(path, Number.parseInt(entry.mode ?? defaultMode(entry), 8));
  }
}

function defaultMode({ type }) {
  return type === "directory" ? "0755" : "0644";
}
