import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { homeOf, resolveUser } from "../../src/image/users.ts";

let directory = "";
let root = -1;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "users-"));
  mkdirSync(join(directory, "etc"));
  root = openSync(directory, "r");
  write(
    "passwd",
    "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:/bin/sh\n1234:x:7:8::/seven:\nbig:x:4294967296:0::/:\nnohome:x:9:9:::\n",
  );
  write("group", "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nvideo:x:44:app,other\n77:x:78:\n");
});

afterEach(() => {
  closeSync(root);
  rmSync(directory, { recursive: true });
});

function write(name: string, text: string): void {
  rmSync(join(directory, "etc", name), { force: true });
  writeFileSync(join(directory, "etc", name), text);
}

test.each([
  ["", { uid: 0, gid: 0, additionalGids: [0, 10], home: "/root" }],
  ["root", { uid: 0, gid: 0, additionalGids: [0, 10], home: "/root" }],
  ["app", { uid: 1000, gid: 1001, additionalGids: [1001, 10, 44], home: "/home/app" }],
  ["1000", { uid: 1000, gid: 1001, additionalGids: [1001, 10, 44], home: "/home/app" }],
  ["app:video", { uid: 1000, gid: 44, additionalGids: [44], home: "/home/app" }],
  ["app:5", { uid: 1000, gid: 5, additionalGids: [5], home: "/home/app" }],
  ["4242", { uid: 4242, gid: 0, additionalGids: [0], home: "/" }],
  ["4242:4343", { uid: 4242, gid: 4343, additionalGids: [4343], home: "/" }],
  ["1234", { uid: 7, gid: 8, additionalGids: [8], home: "/seven" }],
  ["app:77", { uid: 1000, gid: 78, additionalGids: [78], home: "/home/app" }],
  ["nohome", { uid: 9, gid: 9, additionalGids: [9], home: "/" }],
  ["2147483647", { uid: 2147483647, gid: 0, additionalGids: [0], home: "/" }],
])("user %j is found", (text, expected) => {
  expect(resolveUser(root, text)).toEqual(expected);
});

test.each([
  ["nobody", "unable to find user nobody: no matching entries in passwd file"],
  ["app:nogroup", "unable to find group nogroup: no matching entries in group file"],
  ["0x1", "unable to find user 0x1: no matching entries in passwd file"],
  ["-1", "unable to find user -1: no matching entries in passwd file"],
  ["big", "unable to find user big: no matching entries in passwd file"],
  [" 1", "must be USER or USER:GROUP"],
  ["1 ", "must be USER or USER:GROUP"],
  ["1000:", "must be USER or USER:GROUP"],
  [":1000", "must be USER or USER:GROUP"],
  [":", "must be USER or USER:GROUP"],
  ["1:1:1", "must be USER or USER:GROUP"],
  ["1\n", "must be USER or USER:GROUP"],
  ["2147483648", "ids go from 0 to 2147483647"],
  ["4294967296:1", "ids go from 0 to 2147483647"],
  ["1:4294967296", "ids go from 0 to 2147483647"],
])("user %j is refused", (text, message) => {
  expect(() => resolveUser(root, text)).toThrowError(message);
});

test("groups asked for are added once, by name or number", () => {
  expect(resolveUser(root, "app:app", ["video", "44", "99"]).additionalGids).toEqual([1001, 44, 99]);
});

test("a root without passwd and group knows numbers only", () => {
  rmSync(join(directory, "etc"), { recursive: true });
  expect(resolveUser(root, "5:6")).toEqual({ uid: 5, gid: 6, additionalGids: [6], home: "/" });
  expect(resolveUser(root, "").uid).toBe(0);
  expect(() => resolveUser(root, "root")).toThrowError("no matching entries");
});

test("links in the root stay in the root", () => {
  const outside = mkdtempSync(join(tmpdir(), "users-outside-"));
  try {
    writeFileSync(join(outside, "passwd"), "app:x:666:666::/evil:\n");
    rmSync(join(directory, "etc/passwd"));
    symlinkSync(join(outside, "passwd"), join(directory, "etc/passwd"));
    expect(() => resolveUser(root, "app")).toThrowError("no matching entries");
    rmSync(join(directory, "etc"), { recursive: true });
    symlinkSync("../../../../../../../../etc", join(directory, "etc"));
    expect(homeOf(root, 0)).toBe("/"); // a link to itself, seen from inside: there is no passwd
    mkdirSync(join(directory, "usr"));
    rmSync(join(directory, "etc"));
    symlinkSync("/usr", join(directory, "etc"));
    writeFileSync(join(directory, "usr/passwd"), "app:x:5:5::/usr-home:\n");
    expect(homeOf(root, 5)).toBe("/usr-home");
  } finally {
    rmSync(outside, { recursive: true });
  }
});

test("a fifo, a directory or a device in place of passwd is refused at once", () => {
  for (const make of [["mkfifo"], ["mkdir"], ["ln", "-s", "/proc/self/fd/0"], ["ln", "-s", "/proc/self/exe"]]) {
    rmSync(join(directory, "etc/passwd"), { recursive: true, force: true });
    execFileSync(make[0] ?? "", [...make.slice(1), join(directory, "etc/passwd")]);
    expect(() => resolveUser(root, "app"), make.join(" ")).toThrowError();
  }
});

test("a passwd larger than 1 MiB is refused, one of 1 MiB is read", () => {
  const line = "app:x:1000:1000::/home/app:\n";
  write("passwd", line + "#".repeat((1 << 20) - line.length));
  expect(resolveUser(root, "app").uid).toBe(1000);
  write("passwd", line + "#".repeat((1 << 20) - line.length + 1));
  expect(() => resolveUser(root, "app")).toThrowError("larger than 1 MiB");
});
