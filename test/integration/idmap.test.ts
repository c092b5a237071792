import { chmodSync, chownSync, mkdirSync, mkdtempSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import type { IdMapping, Mount } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import {
  cleanUp,
  cleanUpFile,
  makeBundle,
  probe,
  results,
  run,
  scratchDirectory,
  type WholeSpec,
} from "../support/bundle.ts";

// OCI runtime-spec, config.md "Mounts": uidMappings, gidMappings, idmap, ridmap; crun(1), "idmap mount options".

afterEach(cleanUp);
afterAll(cleanUpFile);

const map = (containerID: number, hostID: number, size: number): IdMapping[] => [{ containerID, hostID, size }];

/** A directory of the host with files of three users: 0, 1000 and 5000. */
function hostDirectory(): string {
  const path = mkdtempSync(join(scratchDirectory(), "mapped-"));
  chmodSync(path, 0o755);
  for (const id of [0, 1000, 5000]) {
    writeFileSync(join(path, String(id)), "");
    chownSync(join(path, String(id)), id, id + 1);
  }
  return path;
}

function inUserNamespace(spec: WholeSpec): void {
  spec.linux.namespaces?.push({ type: "user" });
  Object.assign(spec.linux, { uidMappings: map(0, 100_000, 10_000), gidMappings: map(0, 100_000, 10_000) });
}

/** Owners of those files as seen at /tmp: "uid:gid". */
function owners(mount: Partial<Mount>, edit: (spec: WholeSpec) => void = () => undefined): string[] {
  const seen = probe(
    (spec) => {
      spec.mounts.push({ destination: "/tmp", type: "bind", source: hostDirectory(), ...mount });
      edit(spec);
    },
    [0, 1000, 5000].flatMap((id) => ["--stat", `/tmp/${id}`]),
  );
  return results(seen.actions).map((seen) => {
    const { uid, gid } = seen as { uid: number; gid: number }; // of --stat
    return `${uid}:${gid}`;
  });
}

test("a mount's own mappings say who its files belong to, with the option idmap and without it", () => {
  covers("mounts.uidMappings", "mounts.options idmap");
  const mappings = { uidMappings: map(1000, 33, 1), gidMappings: map(1001, 44, 1) };
  // what is not mapped is nobody's
  const expected = ["65534:65534", "33:44", "65534:65534"];
  expect(owners({ options: ["bind", "idmap"], ...mappings })).toEqual(expected);
  expect(owners({ options: ["bind"], ...mappings })).toEqual(expected);
  expect(owners({ options: ["rbind", "ridmap", "ro"], ...mappings })).toEqual(expected);
});

test("in a user namespace, idmap alone maps as the container is mapped; without it files are nobody's", () => {
  covers("mounts.options idmap");
  expect(owners({ options: ["bind"] }, inUserNamespace)).toEqual(["65534:65534", "65534:65534", "65534:65534"]);
  expect(owners({ options: ["bind", "idmap"] }, inUserNamespace)).toEqual(["0:1", "1000:1001", "5000:5001"]);
  // own mappings count in ids of the host, whatever the container's are
  const mappings = { uidMappings: map(1000, 100_007, 1), gidMappings: map(1001, 100_008, 1) };
  expect(owners({ options: ["bind", "idmap"], ...mappings }, inUserNamespace)[1]).toBe("7:8");
});

test("what is written through the mount belongs, on the disk, to whom the mapping says", () => {
  covers("mounts.uidMappings");
  const source = hostDirectory();
  chownSync(source, 1000, 1000);
  probe(
    (spec) => {
      spec.mounts.push({
        destination: "/tmp",
        type: "bind",
        source,
        options: ["bind", "idmap"],
        uidMappings: map(1000, 0, 1),
        gidMappings: map(1000, 0, 1),
      });
    },
    ["--write", "/tmp/new", "x"],
  );
  expect(statSync(join(source, "new"))).toMatchObject({ uid: 1000, gid: 1000 });
});

test("crun's extended option: ranges of the disk, seen as ids of the host or, with @, of the container", () => {
  covers("mounts.options idmap");
  expect(owners({ options: ["bind", "idmap=uids=0-10-1#1000-20-1;gids=1-30-1#1001-40-1"] })).toEqual([
    "10:30",
    "20:40",
    "65534:65534",
  ]);
  const relative = "idmap=uids=@0-10-1#1000-100020-1;gids=@1-30-1";
  expect(owners({ options: ["bind", relative] }, inUserNamespace)).toEqual(["10:30", "20:65534", "65534:65534"]);
  // a kind that is not named is mapped as the container is
  expect(owners({ options: ["bind", "idmap=uids=@1000-0-1"] }, inUserNamespace)).toEqual([
    "65534:1",
    "0:1001",
    "65534:5001",
  ]);
  expect(owners({ options: ["rbind", "ridmap=uids=1000-7-1"] })).toEqual(["65534:1", "7:1001", "65534:5001"]);
});

test("idmap maps one mount, ridmap those below, too", () => {
  covers("mounts.options idmap");
  const source = mkdtempSync(join(scratchDirectory(), "nested-"));
  chmodSync(source, 0o755);
  mkdirSync(join(source, "below"));
  const through = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    `mount -t tmpfs -o uid=1000,gid=1000,mode=0700 below ${source}/below && "$@"`,
    "sh",
  ];
  const uidBelow = (option: string) => {
    const seen = probe(
      (spec) => {
        const mappings = map(1000, 33, 1);
        const ids = { uidMappings: mappings, gidMappings: mappings };
        spec.mounts.push({ destination: "/tmp", type: "bind", source, options: ["rbind", option], ...ids });
      },
      ["--stat", "/tmp/below"],
      { through },
    );
    return seen.actions[0]?.result;
  };
  expect(uidBelow("idmap")).toMatchObject({ uid: 1000, gid: 1000 });
  expect(uidBelow("ridmap")).toMatchObject({ uid: 33, gid: 33 });
});

test("a filesystem that cannot be mapped is an error with a remedy, and leaves nothing behind", () => {
  const mapping = map(0, 1000, 1);
  const own = { uidMappings: mapping, gidMappings: mapping };
  for (const [mount, edit] of [
    [own, () => undefined],
    [{}, inUserNamespace],
  ] as const) {
    const bundle = makeBundle((spec) => {
      edit(spec);
      spec.mounts.push({
        destination: "/tmp",
        type: "bind",
        source: "/proc/sys",
        options: ["bind", "idmap"],
        ...mount,
      });
    });
    const { status, stderr } = run(bundle);
    expect(status).toBe(1);
    expect(stderr).toContain("/mounts/7");
    expect(stderr).toContain("cannot map ids");
  }
});

test("mappings that cannot be are refused before anything is made", () => {
  for (const [mount, words] of [
    [{ options: ["bind", "idmap"] }, "needs mappings or a user namespace"],
    [{ options: ["bind", "idmap=uids=0-1"] }, "must be like"],
    [{ options: ["bind", "idmap=uids=0-4294967295-2"] }, "must be like"],
    [{ options: ["bind", "idmap"], uidMappings: map(0, 1, 1) }, "mapped together"],
    [{ type: "tmpfs", options: ["idmap"], uidMappings: map(0, 1, 1), gidMappings: map(0, 1, 1) }, "must have bind"],
  ] as const) {
    const bundle = makeBundle((spec) => {
      spec.mounts.push({ destination: "/tmp", type: "bind", source: "/usr", ...mount, options: [...mount.options] });
    });
    expect(run(bundle)).toMatchObject({ status: 1, stderr: expect.stringContaining(words) });
  }
});
