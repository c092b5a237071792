import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readBundle } from "../../src/spec/bundle.ts";
import type { Linux } from "../../src/spec/spec.ts";
import { template } from "../../src/spec/template.ts";

let directory: string;
beforeEach(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), "caisson-bundle-")));
});
afterEach(() => rmSync(directory, { recursive: true }));

const config = (text: string) => writeFileSync(join(directory, "config.json"), text);

test("a bundle is read, and its path is the real one", () => {
  config(JSON.stringify({ ...template(), mounts: [{ destination: "data", type: "tmpfs" }] }));
  symlinkSync(directory, join(directory, "link"));
  const { spec, bundle, warnings } = readBundle(join(directory, "link"));
  expect(bundle).toBe(directory);
  expect(spec.process?.args).toEqual(["sh"]);
  expect(warnings).toEqual([{ pointer: "/mounts/0/destination", message: "is relative: taken as relative to /" }]);
});

test("who maps nobody into a new user namespace is root in there, alone", () => {
  const mapping = [{ containerID: 0, hostID: 1000, size: 10 }];
  const mapped = (linux: Linux) => {
    config(JSON.stringify({ ...template(), hostname: undefined, linux }));
    const { uidMappings, gidMappings } = readBundle(directory).spec.linux ?? {};
    return { uidMappings, gidMappings };
  };
  const [uid, gid] = [process.geteuid?.(), process.getegid?.()];
  expect(mapped({ namespaces: [{ type: "user" }] })).toEqual({
    uidMappings: [{ containerID: 0, hostID: uid, size: 1 }],
    gidMappings: [{ containerID: 0, hostID: gid, size: 1 }],
  });
  const own = { uidMappings: mapping, gidMappings: mapping };
  expect(mapped({ namespaces: [{ type: "user" }], ...own })).toEqual(own);
  expect(mapped({ namespaces: [{ type: "user", path: "/proc/1/ns/user" }] })).toEqual({});
  expect(mapped({ namespaces: [{ type: "mount" }] })).toEqual({});
});

test("a bundle without config.json is refused in runc's words", () => {
  expect(() => readBundle(directory)).toThrow(
    expect.objectContaining({ message: "JSON specification file config.json not found", code: "ENOENT", errno: 2 }),
  );
});

test("a directory that is not there is named", () => {
  const missing = join(directory, "missing");
  expect(() => readBundle(missing)).toThrow(`cannot find bundle ${missing}: ENOENT`);
});

test("faults name the file", () => {
  config('{"ociVersion":"1.0.0"}');
  expect(() => readBundle(directory)).toThrow(`cannot use ${directory}/config.json, it has 2 faults:`);
});

test("a directory in its place is refused", () => {
  mkdirSync(join(directory, "config.json"));
  expect(() => readBundle(directory)).toThrow(`cannot read ${directory}/config.json: not a regular file`);
});

test("a FIFO in its place is refused at once, not waited for", () => {
  expect(spawnSync("mkfifo", [join(directory, "config.json")]).status).toBe(0);
  expect(() => readBundle(directory)).toThrow("not a regular file");
});

test("a config.json of more than 16 MiB is refused unread", () => {
  config("{}");
  truncateSync(join(directory, "config.json"), 2 ** 40);
  expect(() => readBundle(directory)).toThrow("larger than 16 MiB");
});
