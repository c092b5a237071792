import { readFileSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { AT_FDCWD, AT_REMOVEDIR, close, O, open } from "../kernel/file.ts";
import { call, kernelError, tryCall } from "../kernel/syscall.ts";

const EEXIST = 17;

/**
 * Makes a class of service, or takes the one that is there if it has the same schemata.
 * @throws ContainerError EINVAL when it has others, or what the kernel says of them
 */
export function makeClass(path: string, schemata: readonly string[]): void {
  const made = tryCall("mkdirat", AT_FDCWD, path, 0o755);
  if (made < 0 && made !== -EEXIST) throw kernelError("mkdirat", -made, path);
  if (schemata.length === 0) return;
  const file = `${path}/schemata`;
  if (made < 0) {
    const differing = differences(schemata, readFileSync(file, "utf8"));
    if (differing.length > 0)
      throw new ContainerError({
        message: `the class of service ${path} is there already, with other schemata than ${differing.join(", ")}`,
        code: "EINVAL",
        path,
      });
    return;
  }
  write(file, `${schemata.join("\n")}\n`);
}

/** Moves a process into a class or monitoring group. */
export function enterClass(path: string, pid: number): void {
  write(`${path}/tasks`, String(pid));
}

/** A monitoring group for one container. */
export function monitorClass(path: string, pid: number): void {
  const made = tryCall("mkdirat", AT_FDCWD, path, 0o755);
  if (made < 0 && made !== -EEXIST) throw kernelError("mkdirat", -made, path);
  enterClass(path, pid);
}

/** Removes a class or monitoring group; its processes fall back to the one above. Can be repeated. */
export function removeClass(path: string): void {
  tryCall("unlinkat", AT_FDCWD, path, AT_REMOVEDIR);
}

function write(path: string, text: string): void {
  const file = open(path, O.WRONLY | O.NOFOLLOW);
  const bytes = Buffer.from(text);
  try {
    call("write", file, bytes, bytes.length);
  } finally {
    close(file);
  }
}

/** The wanted lines ("L3:0=ff;1=f0") that a schemata file does not have; it pads with blanks and zeros. */
function differences(wanted: readonly string[], schemata: string): string[] {
  const present = new Map(schemata.split("\n").flatMap(domainsOf));
  return wanted.filter((line) => domainsOf(line).some(([domain, value]) => present.get(domain) !== value));
}

function domainsOf(line: string): [domain: string, value: string][] {
  const [resource = "", domains = ""] = line.split(":");
  return domains
    .split(";")
    .filter((domain) => domain.trim() !== "")
    .map((domain) => {
      const [id = "", value = ""] = domain.split("=");
      return [`${resource.trim()}:${id.trim()}`, value.trim().replace(/^0+(?=.)/, "")];
    });
}
