import { describe, expect, test } from "vitest";
import { knownMountOptions, MOUNT_ATTR, PROPAGATION, parseMountOptions } from "../../src/linux/mount-options.ts";
import { fc } from "../support/fuzz.ts";

const { RDONLY, NOSUID, NODEV, NOEXEC, NOATIME, STRICTATIME, NODIRATIME, NOSYMFOLLOW, ATIME_FIELD } = MOUNT_ATTR;
const nothing = parseMountOptions([]);

test("options go to whom they concern", () => {
  expect(
    parseMountOptions([
      "rbind",
      "nosuid",
      "noexec",
      "rro",
      "rslave",
      "sync",
      "idmap=uids=0-1-2",
      "tmpcopyup",
      "src-nofollow",
      "copy-symlink",
      "dest-nofollow",
      "mode=755",
      "newinstance",
      "remount",
    ]),
  ).toEqual({
    bind: "rbind",
    remount: true,
    attrSet: NOSUID | NOEXEC,
    attrClear: 0,
    recursiveSet: RDONLY,
    recursiveClear: 0,
    propagation: [{ flag: PROPAGATION.slave, recursive: true }],
    superFlags: ["sync"],
    data: ["mode=755", "newinstance"],
    idmap: "idmap",
    idmapRanges: "uids=0-1-2",
    tmpcopyup: true,
    copySymlink: true,
    sourceNofollow: true,
    destinationNofollow: true,
  });
});

test("propagation keeps its order", () => {
  expect(parseMountOptions(["private", "rshared"]).propagation).toEqual([
    { flag: 1 << 18, recursive: false },
    { flag: 1 << 20, recursive: true },
  ]);
});

describe("each attribute has its opposite, and the later one counts", () => {
  test.each([
    ["ro", "rw", RDONLY],
    ["nosuid", "suid", NOSUID],
    ["nodev", "dev", NODEV],
    ["noexec", "exec", NOEXEC],
    ["nosymfollow", "symfollow", NOSYMFOLLOW],
    ["nodiratime", "diratime", NODIRATIME],
  ])("%s and %s", (set, clear, bit) => {
    expect(parseMountOptions([clear, set])).toEqual({ ...nothing, attrSet: bit });
    expect(parseMountOptions([set, clear])).toEqual({ ...nothing, attrClear: bit });
    expect(parseMountOptions([`r${clear}`, `r${set}`])).toEqual({ ...nothing, recursiveSet: bit });
    expect(parseMountOptions([`r${set}`, `r${clear}`])).toEqual({ ...nothing, recursiveClear: bit });
  });
});

describe("the access time is one field, cleared as a whole before it is set", () => {
  test.each<[string[], number, number]>([
    [["noatime"], NOATIME, ATIME_FIELD],
    [["strictatime"], STRICTATIME, ATIME_FIELD],
    [["relatime"], 0, ATIME_FIELD],
    [["atime"], 0, ATIME_FIELD],
    [["nostrictatime"], 0, ATIME_FIELD],
    [["noatime", "strictatime"], STRICTATIME, ATIME_FIELD],
    [["noatime", "atime"], 0, ATIME_FIELD],
    [["strictatime", "atime"], STRICTATIME, ATIME_FIELD],
    [["noatime", "nostrictatime"], NOATIME, ATIME_FIELD],
    [["norelatime"], 0, 0],
    [["ro", "noatime", "nodiratime"], RDONLY | NOATIME | NODIRATIME, ATIME_FIELD],
  ])("%j", (options, set, clear) => {
    expect(parseMountOptions(options)).toEqual({ ...nothing, attrSet: set, attrClear: clear });
    expect(parseMountOptions(options.map((option) => `r${option}`))).toEqual({
      ...nothing,
      recursiveSet: set,
      recursiveClear: clear,
    });
  });
});

test("whatever the options, the kernel accepts the attributes", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...knownMountOptions())), (options) => {
      const { attrSet, attrClear, data } = parseMountOptions(options);
      expect(data).toEqual([]);
      // mount_setattr(2), EINVAL: the field is cleared in part, or set without being cleared, or set to no value.
      expect([0, ATIME_FIELD]).toContain(attrClear & ATIME_FIELD);
      if ((attrClear & ATIME_FIELD) === 0) expect(attrSet & ATIME_FIELD).toBe(0);
      expect([0, NOATIME, STRICTATIME]).toContain(attrSet & ATIME_FIELD);
      expect(attrSet & attrClear & ~ATIME_FIELD).toBe(0);
    }),
  );
});

test("options without effect are not passed on", () => {
  expect(parseMountOptions(["defaults", "iversion", "silent", "loud", ""])).toEqual(nothing);
});

test("the known options are the specification's and each is there once", () => {
  const known = knownMountOptions();
  expect(new Set(known).size).toBe(known.length);
  // runtime-spec 1.3, config.md, "Linux mount options".
  const specified = `async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev
    nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev
    rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid
    rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared
    silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap`;
  for (const option of specified.split(/\s+/)) expect(known).toContain(option);
});
