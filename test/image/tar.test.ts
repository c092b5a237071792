import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readImages, writeTar } from "../../rootfs-fixtures/build.mjs";
import { ContainerError } from "../../src/error.ts";
import { type TarEntry, type TarLimits, TarReader } from "../../src/image/tar.ts";
import { fc } from "../support/fuzz.ts";

interface Seen extends TarEntry {
  contents: Buffer;
}

/** Reads an archive in pieces of this size; contents with their holes filled. */
function read(bytes: Buffer, pieceBytes = bytes.length, limits: Partial<TarLimits> = {}): Seen[] {
  const seen: Seen[] = [];
  let current: Seen | undefined;
  const reader = new TarReader(
    {
      begin: (entry) => {
        // sizes are the archive's word: what is not stored is not allocated
        current = { ...entry, contents: Buffer.alloc(Math.min(entry.sizeBytes, 4 << 20)) };
      },
      data: (piece, offset) => {
        if (current !== undefined && offset + piece.length <= current.contents.length)
          current.contents.set(piece, offset);
      },
      end: () => {
        if (current !== undefined) seen.push(current);
      },
    },
    limits,
  );
  for (let at = 0; at < bytes.length; at += pieceBytes) reader.push(bytes.subarray(at, at + pieceBytes));
  reader.finish();
  return seen;
}

const summary = (seen: Seen[]) =>
  seen
    .map(({ contents, ...entry }) => `${JSON.stringify(entry)} ${createHash("sha256").update(contents).digest("hex")}`)
    .join("\n");
const file = (path: string, text = "") => ({ path, type: "file" as const, content: Buffer.from(text) });
const one = (bytes: Buffer) => read(bytes)[0];
const fails = (bytes: Buffer, why: string, limits?: Partial<TarLimits>) =>
  expect(() => read(bytes, bytes.length, limits)).toThrowError(
    expect.objectContaining({ code: "ERR_ARCHIVE", message: expect.stringContaining(why) }),
  );
const pax = (records: string) => writeTar([{ ...file("x"), rawPax: Buffer.from(records) }]);
const record = (key: string, value: string) => {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (`${length}${rest}`.length !== length) length++;
  return `${length}${rest}`;
};

describe("members", () => {
  test("every kind has its fields", () => {
    const seen = read(
      writeTar([
        { path: "d", type: "directory", mode: "1777", uid: 5, gid: 6, mtime: "1700000000.5" },
        file("d/f", "hello"),
        { path: "l", type: "symlink", target: "d/f" },
        { path: "h", type: "hardlink", target: "d/f" },
        { path: "c", type: "character", device: "1:3" },
        { path: "b", type: "block", device: "8:300" },
        { path: "p", type: "fifo" },
      ]),
    );
    expect(seen.map(({ type, path }) => `${type} ${path}`)).toEqual([
      "directory d/",
      "file d/f",
      "symlink l",
      "hardlink h",
      "character c",
      "block b",
      "fifo p",
    ]);
    expect(seen[0]).toMatchObject({
      mode: 0o1777,
      uid: 5,
      gid: 6,
      mtimeSeconds: 1700000000,
      mtimeNanoseconds: 500000000,
    });
    expect(seen[1]?.contents.toString()).toBe("hello");
    expect(seen.map(({ link }) => link.toString()).join()).toBe(",,d/f,d/f,,,");
    expect(seen[5]).toMatchObject({ deviceMajor: 8, deviceMinor: 300 });
  });

  test("the size of the pieces makes no difference", () => {
    let members = 0;
    for (const name of ["fixture", "sparse", "variants"] as const)
      for (const layer of readImages(name).flatMap(({ layers }) => layers)) {
        if (layer.length > 1 << 20) continue;
        const whole = summary(read(layer));
        members += whole.split("\n").length;
        for (const pieceBytes of [7, 511, 512, 513, 4096])
          expect(summary(read(layer, pieceBytes)), `${pieceBytes}`).toBe(whole);
      }
    expect(members).toBeGreaterThan(20);
  });

  test("names keep their bytes, whatever the encoding", () => {
    const path = Buffer.from([0xff, 0xfe, 0x2f, 0xe4]);
    expect(one(writeTar([{ path: "", pathHex: path.toString("hex"), type: "file" }]))?.path).toEqual(path);
  });

  test("attributes keep their bytes, newlines and zeros included", () => {
    const xattrs = { "security.capability": "010000020004000000000000000a0000", "user.empty": "" };
    expect(one(writeTar([{ ...file("x"), xattrs }]))?.xattrs).toEqual([
      "security.capability",
      Buffer.from(xattrs["security.capability"], "hex"),
      "user.empty",
      Buffer.alloc(0),
    ]);
  });

  test("times before 1970 and of nanoseconds are exact", () => {
    const time = (text: string) => {
      const entry = one(pax(record("mtime", text)));
      return [entry?.mtimeSeconds, entry?.mtimeNanoseconds];
    };
    expect(time("-1.25")).toEqual([-2, 750000000]);
    expect(time("-3")).toEqual([-3, 0]);
    expect(time("1700000000.123456789123")).toEqual([1700000000, 123456789]);
    expect(time("5.")).toEqual([5, 0]);
  });
});

describe("what GNU tar writes", () => {
  test.each(["ustar", "gnu", "pax", "v7", "oldgnu"])("in format %s is read as it was", (format) => {
    const directory = mkdtempSync(join(tmpdir(), "tar-"));
    try {
      const long = format === "v7" ? "short" : `${"d".repeat(60)}/${"e".repeat(60)}`;
      mkdirSync(join(directory, long), { recursive: true });
      writeFileSync(join(directory, long, "file"), "text");
      const bytes = execFileSync("tar", [`--format=${format}`, "-C", directory, "-cf", "-", "."], {
        maxBuffer: 1 << 26,
      });
      const seen = read(bytes);
      expect(seen.find(({ path }) => path.toString() === `./${long}/file`)?.contents.toString()).toBe("text");
      expect(seen[0]).toMatchObject({ type: "directory", path: Buffer.from("./") });
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test.each(["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"])(
    "sparse files with %s have their holes",
    (option) => {
      const directory = mkdtempSync(join(tmpdir(), "tar-"));
      try {
        const path = join(directory, "sparse");
        // more parts than one header holds
        execFileSync("sh", [
          "-c",
          `for i in $(seq 0 39); do printf part$i | dd of=${path} bs=1 seek=$((i * 16384)) conv=notrunc status=none; done; truncate -s 900000 ${path}`,
        ]);
        const format = option.startsWith("--format") ? [option] : ["--format=pax", option];
        const [entry] = read(
          execFileSync("tar", [...format, "-S", "-C", directory, "-cf", "-", "sparse"], { maxBuffer: 1 << 26 }),
        );
        expect(entry).toMatchObject({ sparse: true, sizeBytes: 900000, path: Buffer.from("sparse") });
        for (let i = 0; i < 40; i++)
          expect(entry?.contents.toString("latin1", i * 16384, i * 16384 + 6)).toBe(`part${i}`.padEnd(6, "\0"));
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  );
});

describe("faults", () => {
  const good = writeTar([file("a", "x".repeat(700)), file("b")]);

  test("an archive cut short is refused, unless all of the last member's contents are there", () => {
    for (let at = 1; at < good.length - 1024; at++)
      if (at < 512 + 700 || at > 512 + 1024) fails(good.subarray(0, at), "cut short");
      else expect(read(good.subarray(0, at)).length).toBe(1);
  });

  test("a wrong checksum is refused", () => fails(writeTar([{ ...file("a"), badChecksum: true }]), "checksum"));
  test("a block of zeros within the archive is refused", () =>
    fails(Buffer.concat([good.subarray(0, 1536), Buffer.alloc(512), good.subarray(1536)]), "zeros"));
  test("an unknown type is refused", () => fails(writeTar([{ ...file("a"), typeFlag: "?" }]), "type"));
  test("a NUL in a name is refused", () => fails(pax(record("path", "a\0b")), "NUL"));
  test("a name of more than 4095 bytes is refused", () => fails(pax(record("path", "a".repeat(4096))), "4096 bytes"));
  test("an extended header above the limit is refused before it is read", () =>
    fails(pax(record("comment", "a".repeat(2000))), "extended header", { headerBytes: 1024 }));
  test("too many members are refused", () => fails(good, "more than 1", { entries: 1 }));
  test("an extended header without a member is refused", () => {
    const bytes = pax(record("path", "a"));
    fails(Buffer.concat([bytes.subarray(0, 1024), Buffer.alloc(1024)]), "no member");
    fails(bytes.subarray(0, 1024), "cut short");
  });
  test.each([
    "0 path=a\n",
    "5 pa\n",
    "999 path=a\n",
    "9 path=aX",
    "x path=a\n",
    record("size", "-1"),
    record("size", "1e3"),
    record("uid", "4294967295"),
    record("gid", "99999999999999999999"),
    record("mtime", "soon"),
  ])("the PAX record %j is refused", (records) => {
    expect(() => read(pax(records))).toThrowError(ContainerError);
  });

  test.each([
    [
      "overlapping",
      [
        { offset: 0, text: "a".repeat(512) },
        { offset: 100, text: "b".repeat(512) },
      ],
    ],
    ["beyond the end", [{ offset: 4000, text: "a", lengthBytes: 512 }]],
    ["more than is stored", [{ offset: 0, text: "a", lengthBytes: 1024 }]],
  ])("a sparse map that is %s is refused", (_, segments) => {
    for (const sparse of ["old", "0.1", "1.0"] as const)
      fails(writeTar([{ path: "s", type: "sparse", sparse, sizeBytes: 4096, segments }]), "map of a sparse file");
  });
});

test("whatever the bytes, reading ends, and ends well or with an error of ours", () => {
  const layers = [...readImages("variants"), ...readImages("sparse")].flatMap((image) => image.layers);
  const seeds = layers.map((layer) => layer.subarray(0, 64 << 10));
  const edits = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(
      fc.nat(),
      edits,
      fc.integer({ min: 1, max: 2000 }),
      fc.boolean(),
      (which, changes, pieceBytes, repair) => {
        const bytes = Buffer.from(seeds[which % seeds.length] ?? Buffer.alloc(0));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        if (repair) repairChecksums(bytes);
        const reader = new TarReader({ begin() {}, data() {}, end() {} });
        try {
          for (let at = 0; at < bytes.length; at += pieceBytes) reader.push(bytes.subarray(at, at + pieceBytes));
          reader.finish();
        } catch (error) {
          if (!(error instanceof ContainerError)) throw error;
        }
      },
    ),
    { numRuns: 3000 },
  );
});

/** Makes the sum right where a header may be, so that a changed field is looked at. */
function repairChecksums(bytes: Buffer): void {
  for (let at = 0; at + 512 <= bytes.length; at += 512) {
    if (bytes.toString("latin1", at + 257, at + 262) !== "ustar") continue;
    bytes.fill(" ", at + 148, at + 156);
    let sum = 0;
    for (let i = 0; i < 512; i++) sum += bytes[at + i] ?? 0;
    bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, at + 148, "latin1");
  }
}
