import { execFileSync } from "node:child_process";

const LIST_ATTRIBUTES = `
import os, sys
os.chdir(sys.argv[1])
found = set()
for directory, directories, files in os.walk(b"."):
    for name in [b"."] + directories + files:
        path = os.path.normpath(os.path.join(directory, name))
        for key in os.listxattr(path, follow_symlinks=False):
            found.add((path, key, os.getxattr(path, key, follow_symlinks=False).hex()))
for entry in sorted(found): print(*entry)
`;

/**
 * A tree as find(1), stat(1) and Python see it, in lines: type, mode, owner, size, time in nanoseconds, links, devices, attributes, and
 * a checksum of each file. Equal trees give equal text.
 */
export function describeTree(directory: string): string {
  const shell = (script: string) =>
    execFileSync("bash", ["-c", `set -o pipefail; cd "$1"; ${script}`, "-", directory], {
      maxBuffer: 1 << 28,
      encoding: "latin1",
    });
  const members = shell(
    "find . -printf '%p|%y|%#m|%U:%G|%T@|%l|' -a \\( -type d -printf '\\n' -o -printf '%s|%n\\n' \\) | LC_ALL=C sort",
  );
  const devices = shell("find . \\( -type c -o -type b \\) -exec stat -c '%n %t:%T' {} + | LC_ALL=C sort");
  const groups = new Map<string, string[]>();
  for (const line of shell("find . ! -type d -links +1 -printf '%i %p\\n' | LC_ALL=C sort").split("\n")) {
    const [inode = "", path = ""] = line.split(" ");
    groups.set(inode, [...(groups.get(inode) ?? []), path]);
  }
  const links = [...groups.values()]
    .map((paths) => paths.join(" = "))
    .sort()
    .join("\n");
  const sums = shell("find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum");
  const attributes = execFileSync("python3", ["-c", LIST_ATTRIBUTES, directory], {
    maxBuffer: 1 << 28,
    encoding: "latin1",
  });
  return [members, devices, links, sums, attributes].join("\n");
}
