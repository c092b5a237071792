import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  fixtures,
  MALICIOUS_ARCHIVES,
  MALICIOUS_LAYERS,
  makeCanary,
  maliciousArchive,
} from "../../rootfs-fixtures/build.mjs";
import { results } from "../support/bundle.ts";
import { expectFailure, expectPlainWords, lastLine, Machine } from "../support/engine.ts";
import { digestOf } from "../support/host-snapshot.ts";

let machine: Machine;
let canary = "";
let untouched = "";
let stored: string[] = [];

/** Layers that are only odd: what they say can be done inside the tree. All others must be refused. */
const ACCEPTED = new Set([
  "absolute member",
  "root as file",
  "hard link to symlink, then written",
  "hard link to itself",
  "symlink as parent",
  "symlink as parent across layers",
  "symlink as parent of a directory",
  "symlink as parent of a device",
  "file written through symlink",
  "directory over symlink",
  "directory, then symlink, then file",
  "whiteout through symlink",
  "opaque through symlink",
  "whiteout that is a directory",
  "whiteout that is a device",
  "overlay's own whiteout",
  "overlay's own attributes",
  "duplicate entries",
  "500 directories deep",
  "no end blocks",
  "sparse bomb, old format",
  "image name that is a path",
]);
/** Takes as long as two million files take anywhere; its size is in proportion. */
const LONG = new Set(["two million entries"]);

beforeAll(async () => {
  machine = await Machine.make();
  canary = mkdtempSync(join(tmpdir(), "canary-"));
  makeCanary(canary);
  writeFileSync(join(canary, "kept"), "kept");
  untouched = digestOf(canary);
  stored = store();
});
afterAll(() => {
  rmSync(canary, { recursive: true, force: true });
  machine.close();
});

/** Every name in the data directory. */
function store(): string[] {
  return readdirSync(machine.data, { recursive: true, encoding: "utf8" }).sort();
}

function load(bytes: Buffer) {
  const path = join(machine.directory, "evil.tar");
  writeFileSync(path, bytes);
  const outcome = machine.caisson(["load", path]);
  rmSync(path);
  return outcome;
}

const refused = [...Object.keys(MALICIOUS_LAYERS), ...Object.keys(MALICIOUS_ARCHIVES)].filter(
  (name) => !ACCEPTED.has(name) && !LONG.has(name),
);

test.each(refused)("%s: refused in plain words, and nothing is left", (name) => {
  const { status, stdout, stderr } = load(maliciousArchive(name, canary));
  expect({ status, stdout }).toEqual({ status: 125, stdout: "" });
  expect(stderr).toMatch(/^error: cannot /);
  expectPlainWords(stderr);
  expect(store()).toEqual(stored);
  expect(digestOf(canary)).toBe(untouched);
});

test.each([...ACCEPTED])("%s: taken as it can be, within the tree", async (name) => {
  const own = await Machine.make({ images: [] });
  try {
    const path = join(own.directory, "odd.tar");
    writeFileSync(path, maliciousArchive(name, canary));
    expect(own.caisson(["load", path])).toMatchObject({ status: 0, stderr: "" });
    expect(digestOf(canary)).toBe(untouched);
    expect(existsSync(join(canary, "escaped"))).toBe(false);
  } finally {
    own.close();
  }
});

describe("an image that is taken", () => {
  test("cannot smuggle whiteouts or attributes into the union", async () => {
    const own = await Machine.make({ images: [] });
    try {
      const path = join(own.directory, "odd.tar");
      writeFileSync(path, maliciousArchive("overlay's own attributes", canary));
      const flags = [
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "",
        "-v",
        `${fixtures.probe}:/probe:ro`,
        path,
        "/probe",
      ];
      const seen = lastLine(own.succeeds([...flags, "--xattr", "/a", "--stat", "/a"]));
      expect(results(seen.actions)).toMatchObject([{}, { type: "directory" }]);
      own.settle();
    } finally {
      own.close();
    }
  });
});

test.each(["docker", "ociGzip", "ociZstd"] as const)(
  "a %s archive cut at any place is refused, and nothing is left",
  async (form) => {
    const own = await Machine.make({ images: [] });
    try {
      own.caisson(["images"]);
      const path = join(own.directory, "cut.tar");
      const whole = readFileSync(fixtures.images.fixture[form]);
      for (const share of [0.01, 0.3, 0.6, 0.9]) {
        writeFileSync(path, whole);
        truncateSync(path, Math.floor(whole.length * share));
        expectFailure(own.caisson(["load", path]), /^error: cannot read/);
        expect(
          readdirSync(own.data, { recursive: true, encoding: "utf8" }).filter((name) =>
            /^(layers|oci\/blobs\/sha256)\/./.test(name),
          ),
        ).toEqual([]);
      }
    } finally {
      own.close();
    }
  },
);

test("what is no archive is said: a missing file, a directory, a device; but a pipe may be one", () => {
  const cases: [string, RegExp][] = [
    ["/no/such/file.tar", /\/no\/such\/file\.tar/],
    [machine.directory, /cannot read/],
    ["/dev/null", /cannot read/],
    ["/dev/zero", /cannot read/],
  ];
  for (const [path, words] of cases) expectFailure(machine.caisson(["load", path], { timeoutMs: 5_000 }), words);
  expect(store()).toEqual(stored);
  // what is in the store already is not made again
  const { stdout } = machine.shell(
    `cat ${fixtures.images.quickstart.docker} | ${machine.commandLine(["load", "/dev/stdin"]).join(" ")}`,
  );
  expect(stdout).toBe("Loaded image: caisson/quickstart:latest\n");
});
