import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  copyFileSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  archive,
  build,
  dockerFiles,
  fixtures,
  MALICIOUS_ARCHIVES,
  makeCanary,
  maliciousArchive,
  ociFiles,
  readImages,
  writeTar,
} from "../../rootfs-fixtures/build.mjs";
import { ContainerError } from "../../src/error.ts";
import { ImageStore } from "../../src/image/store.ts";
import { DRIVERS } from "../../src/storage/storage.ts";
import { describeTree } from "../storage/tree-digest.ts";

const isRoot = process.getuid?.() === 0;
let directory = "";
let data = "";

beforeAll(() => {
  build();
});
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "store-"));
  data = join(directory, "data");
});
afterEach(() => execFileSync("rm", ["-rf", directory]));

const run = (command: string, ...words: string[]) =>
  execFileSync(command, words, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], maxBuffer: 1 << 28 });
const incoming = () => readdirSync(join(data, "incoming")).filter((name) => name !== "lock");
const blobs = () => readdirSync(join(data, "oci/blobs/sha256"));
const layers = () => readdirSync(join(data, "layers"));
const empty = () => ({ blobs: blobs(), layers: layers(), incoming: incoming() });
const NOTHING = { blobs: [], layers: [], incoming: [] };

function write(name: string, bytes: Buffer): string {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
}

/** The image's root as its union mount shows it. */
function rootOf(store: ImageStore, name: string): string {
  const container = mkdtempSync(join(directory, "container-"));
  DRIVERS.vfs.prepare({ layers: store.resolve(name).layerDirectories, container });
  return describeTree(join(container, "root"));
}

function simple(name: string, text: string) {
  return {
    name,
    config: { Cmd: ["/x"] },
    layers: [writeTar([{ path: "x", type: "file", content: Buffer.from(text) }])],
  };
}

describe.skipIf(!isRoot)("the image store (needs root)", () => {
  test.each(["fixture", "quickstart", "variants", "sparse"] as const)(
    "loads %s from every kind of archive, with the same root",
    async (image) => {
      const forms = fixtures.images[image];
      const roots = new Set<string>();
      for (const [form, path] of Object.entries(forms)) {
        data = join(directory, form);
        const store = ImageStore.open(data);
        const loaded = await store.load(path);
        const [summary] = store.list();
        expect(loaded).toEqual(store.list());
        expect(summary?.name).toMatch(/^docker\.io\/caisson\//);
        expect(summary?.created).toBe("2023-11-14T22:13:20Z");
        const resolved = store.resolve(summary?.name ?? "");
        expect(store.resolve(resolved.id.slice(7, 19)).id).toBe(resolved.id);
        // the root directory itself is made by us, now
        roots.add(rootOf(store, resolved.id).replace(/^\.\|.*\n/m, ""));
        expect(incoming()).toEqual([]);
        for (const [i, name] of blobs().entries())
          expect(
            createHash("sha256")
              .update(readFileSync(join(data, "oci/blobs/sha256", name)))
              .digest("hex"),
            `${i}`,
          ).toBe(name);
        for (const path of [data, "oci", "layers", "incoming"].map((name) => (name === data ? data : join(data, name))))
          expect(statSync(path).mode & 0o777).toBe(0o700);
      }
      expect(roots.size).toBe(1);
      expect([...roots][0]?.length).toBeGreaterThan(200);
    },
  );

  test("an image compressed as a whole, or from a pipe, loads too", async () => {
    const store = ImageStore.open(data);
    const plain = fixtures.images.variants.docker;
    run(
      "bash",
      "-c",
      `gzip -c "$1" > "$2"/whole.gz; zstd -q -c "$1" > "$2"/whole.zst; mkfifo "$2"/pipe`,
      "-",
      plain,
      directory,
    );
    const ids = new Set<string | undefined>();
    for (const name of ["whole.gz", "whole.zst"]) ids.add((await store.load(join(directory, name)))[0]?.id);
    const writer = spawn("cp", [plain, join(directory, "pipe")], { stdio: "ignore" });
    ids.add((await store.load(join(directory, "pipe")))[0]?.id);
    expect(writer.pid).toBeDefined();
    ids.add((await store.load(plain))[0]?.id);
    expect(ids.size).toBe(1);
  });

  test("the config says what containers get", async () => {
    const store = ImageStore.open(data);
    await store.load(fixtures.images.fixture.docker);
    expect(store.resolve("caisson/fixture").config.config).toEqual({
      User: "app",
      WorkingDir: "/home/app",
      StopSignal: "SIGUSR1",
      Env: ["PATH=/bin", "FIXTURE=caisson", "EMPTY="],
      Entrypoint: ["/bin/probe"],
      Cmd: ["--stat", "/srv"],
      ExposedPorts: ["8080/tcp", "53/udp"],
      Volumes: ["/srv/shared"],
      Labels: { "org.example.fixture": "yes" },
    });
  });

  test("other programs read the store", async () => {
    await ImageStore.open(data).load(fixtures.images.fixture.ociGzip);
    const oci = `oci:${join(data, "oci")}:docker.io/caisson/fixture:latest`;
    expect(JSON.parse(run("skopeo", "inspect", "--config", oci)).config.User).toBe("app");
    run("skopeo", "copy", "-q", oci, `docker-archive:${join(directory, "again.tar")}:again:1`);
    const store = ImageStore.open(data);
    expect((await store.load(join(directory, "again.tar"))).map(({ name }) => name)).toEqual([
      "docker.io/library/again:1",
    ]);
    expect(rootOf(store, "again:1")).toBe(rootOf(store, "caisson/fixture"));
  });

  test("an image that umoci made has the root that umoci unpacks", async () => {
    const layout = join(directory, "layout");
    const root = join(directory, "made");
    mkdirSync(join(root, "bin"), { recursive: true });
    copyFileSync("/bin/busybox", join(root, "bin/busybox"));
    run("umoci", "init", "--layout", layout);
    run("umoci", "new", "--image", `${layout}:one`);
    run("umoci", "insert", "--image", `${layout}:one`, root, "/");
    writeFileSync(join(root, "bin/more"), "more");
    run("umoci", "insert", "--image", `${layout}:one`, "--tag", "two", "--opaque", root, "/opt");
    run("umoci", "insert", "--image", `${layout}:two`, "--whiteout", "/bin/busybox");
    run("umoci", "unpack", "--image", `${layout}:two`, join(directory, "bundle"));
    const store = ImageStore.open(data);
    expect((await store.load(layout)).map(({ name }) => name).sort()).toEqual([
      "docker.io/library/layout:one",
      "docker.io/library/layout:two",
    ]);
    // umoci leaves the root directory's own time as it was made
    const comparable = (tree: string) => tree.replace(/^\.\|.*\n/m, "").replace(/^\.\/bin\|.*\n/m, "");
    expect(comparable(rootOf(store, "layout:two"))).toBe(comparable(describeTree(join(directory, "bundle/rootfs"))));
  });

  test("images share layers and blobs; removing one leaves what the other needs", async () => {
    const store = ImageStore.open(data);
    const base = simple("a/one:1", "base");
    const top = writeTar([{ path: "y", type: "file", content: Buffer.from("top") }]);
    await store.load(write("one.tar", archive(dockerFiles([base]))));
    await store.load(
      write("two.tar", archive(dockerFiles([{ ...base, name: "a/two:1", layers: [...base.layers, top] }]))),
    );
    expect(layers().length).toBe(2);
    expect(store.remove("a/one:1")).toEqual({ names: ["docker.io/a/one:1"], ids: [expect.stringMatching(/^sha256:/)] });
    expect(layers().length).toBe(2);
    const { chainIds } = store.resolve("a/two:1");
    store.remove("a/two:1", new Set(chainIds.slice(0, 1)));
    expect(layers()).toEqual([chainIds[0]?.slice(7)]);
    expect(blobs()).toEqual([]);
    expect(() => store.remove("a/two:1")).toThrowError("cannot find image a/two:1");
  });

  test("a name that goes to another image leaves the first without one", async () => {
    const store = ImageStore.open(data);
    const [first] = await store.load(write("1.tar", archive(dockerFiles([simple("a:1", "first")]))));
    const [second] = await store.load(write("2.tar", archive(dockerFiles([simple("a:1", "second")]))));
    expect(store.list()).toEqual([expect.not.objectContaining({ name: expect.anything() }), second]);
    expect(store.resolve("a:1").id).toBe(second?.id);
    expect(store.resolve(first?.id ?? "").id).toBe(first?.id);
    await store.load(join(directory, "2.tar"));
    expect(store.list().length).toBe(2);
    expect(store.remove(first?.id ?? "")).toEqual({ names: [], ids: [first?.id] });
    expect(store.list()).toEqual([second]);
  });

  test("an unknown or ambiguous name is told apart from a damaged store", async () => {
    const store = ImageStore.open(data);
    expect(() => store.resolve("nothing")).toThrowError(expect.objectContaining({ code: "ERR_NO_IMAGE" }));
    expect(() => store.resolve("../../etc")).toThrowError(expect.objectContaining({ code: "ERR_NO_IMAGE" }));
    for (let i = 0; i < 20; i++) await store.load(write("x.tar", archive(dockerFiles([simple(`a:${i}`, `${i}`)]))));
    const digits = "0123456789abcdef".split("");
    expect(
      digits.some((digit) => {
        try {
          store.resolve(digit);
          return false;
        } catch (error) {
          return error instanceof ContainerError && error.code === "ERR_AMBIGUOUS";
        }
      }),
    ).toBe(true);
    rmSync(join(data, "layers"), { recursive: true });
    expect(() => ImageStore.open(data).resolve("a:1")).toThrowError(expect.objectContaining({ code: "ERR_NO_LAYER" }));
    await ImageStore.open(data).load(join(directory, "x.tar"));
    expect(store.resolve("a:19").layerDirectories.every((path) => existsSync(path))).toBe(true);
  });

  test("progress counts each layer's bytes up to its size", async () => {
    const seen: string[] = [];
    await ImageStore.open(data).load(fixtures.images.fixture.ociGzip, {
      progress: ({ layer, layers, readBytes, sizeBytes }) => {
        if (readBytes === sizeBytes) seen.push(`${layer}/${layers}`);
      },
    });
    expect(seen.length).toBe(readImages("fixture")[0]?.layers.length);
    expect(seen.at(-1)).toBe(`${seen.length}/${seen.length}`);
  });

  test("limits on size, growth and members are kept", async () => {
    const store = ImageStore.open(data);
    const zeros = writeTar([{ path: "zeros", type: "file", content: Buffer.alloc(8 << 20) }]);
    const path = write("z.tar", archive(ociFiles([{ name: "z:1", config: {}, layers: [zeros] }], "gzip")));
    await expect(store.load(path, { limits: { uncompressedBytes: 1 << 20 } })).rejects.toMatchObject({
      code: "ERR_LIMIT",
    });
    await expect(store.load(path, { limits: { ratioFromBytes: 1 << 20 } })).rejects.toMatchObject({
      code: "ERR_LIMIT",
    });
    await expect(store.load(path, { limits: { entries: 0 } })).rejects.toMatchObject({ code: "ERR_ARCHIVE" });
    expect(empty()).toEqual(NOTHING);
    await store.load(path);
  });

  test("a full file system ends in ENOSPC and leaves nothing", async () => {
    const small = join(directory, "small");
    mkdirSync(small);
    run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small);
    try {
      data = join(small, "data");
      const noise = Buffer.concat(
        Array.from({ length: 200_000 }, (_, i) => createHash("sha256").update(`${i}`).digest()),
      );
      const image = { ...simple("n:1", ""), layers: [writeTar([{ path: "n", type: "file", content: noise }])] };
      const path = write("n.tar", archive(dockerFiles([image])));
      await expect(ImageStore.open(data).load(path)).rejects.toMatchObject({ code: "ENOSPC" });
      expect(empty()).toEqual(NOTHING);
    } finally {
      run("umount", small);
    }
  });

  test("a load killed at any moment leaves nothing after the next, and never half an image", async () => {
    const noise = Buffer.alloc(24 << 20, createHash("sha512").update("noise").digest());
    const image = {
      name: "killed:1",
      config: {},
      layers: [1, 2, 3].map((n) =>
        writeTar([{ path: `${n}`, type: "file" as const, content: Buffer.concat([noise, Buffer.from(`${n}`)]) }]),
      ),
    };
    const path = write("killed.tar", archive(ociFiles([image], "gzip")));
    const small = write("small.tar", archive(dockerFiles([simple("small:1", "small")])));
    const bundle = join(directory, "load.mjs");
    writeFileSync(
      join(directory, "load.ts"),
      `
      import { provideNativeFiles } from ${JSON.stringify(join(process.cwd(), "src/kernel/addon.ts"))};
      import { ImageStore } from ${JSON.stringify(join(process.cwd(), "src/image/store.ts"))};
      provideNativeFiles({ addon: ${JSON.stringify(join(process.cwd(), "build/Release/caisson.node"))}, init: "", monitor: "" });
      await ImageStore.open(process.argv[2]).load(process.argv[3], { progress: () => console.log("going") });`,
    );
    run(
      "node_modules/.bin/esbuild",
      join(directory, "load.ts"),
      "--bundle",
      "--platform=node",
      "--format=esm",
      `--outfile=${bundle}`,
      "--log-level=error",
    );
    let leftovers = 0;
    for (let round = 0; round < 8; round++) {
      const child = spawn("node", [bundle, data, path], { stdio: ["ignore", "pipe", "inherit"] });
      await new Promise((resolve) => child.stdout.once("data", resolve));
      await new Promise((resolve) => setTimeout(resolve, round * 40));
      child.kill("SIGKILL");
      await new Promise((resolve) => child.once("exit", resolve));
      leftovers += incoming().length;
      const store = ImageStore.open(data);
      await store.load(small);
      expect(incoming()).toEqual([]);
      const names = store.list().map(({ name }) => name);
      if (names.includes("docker.io/library/killed:1")) {
        store.resolve("killed:1");
        store.remove("killed:1");
      }
      expect(blobs().length).toBe(3);
      expect(layers().length).toBe(1);
    }
    expect(leftovers, "kills that left something to remove").toBeGreaterThan(2);
  });

  test("what a running load brings is not removed by another command", async () => {
    const store = ImageStore.open(data);
    const images = [1, 2, 3, 4].map((n) => simple(`p:${n}`, `${n}`));
    const paths = images.map((image, i) => write(`${i}.tar`, archive(dockerFiles([image]))));
    await Promise.all(paths.map((path) => store.load(path)));
    expect(store.list().length).toBe(4);
    await Promise.all([store.load(paths[0] ?? ""), (async () => store.remove("p:1"))()]);
    for (const n of [1, 2, 3, 4]) store.resolve(`p:${n}`);
    expect(incoming()).toEqual([]);
  });

  test("a store of a newer version is refused", async () => {
    const store = ImageStore.open(data);
    await store.load(write("a.tar", archive(dockerFiles([simple("a:1", "a")]))));
    const path = join(data, "layers", layers()[0] ?? "", "layer.json");
    writeFileSync(path, readFileSync(path, "utf8").replace('"version":1', '"version":2'));
    expect(() => store.list()).toThrowError(expect.objectContaining({ code: "ERR_VERSION" }));
  });
});

describe.skipIf(!isRoot)("bad archives (needs root)", () => {
  let canary = "";
  let before = "";
  beforeAll(() => {
    canary = mkdtempSync(join(tmpdir(), "canary-"));
    makeCanary(canary);
    writeFileSync(join(canary, "kept"), "kept");
    before = describeTree(canary);
  });
  afterAll(() => rmSync(canary, { recursive: true }));

  const fine = ["image name that is a path"];
  test.each(Object.keys(MALICIOUS_ARCHIVES))(
    "%s: a clear error, and nothing left",
    async (name) => {
      const store = ImageStore.open(data);
      const path = write("evil.tar", maliciousArchive(name, canary));
      const outcome = await store
        .load(path, { limits: { entries: 100_000, ratioFromBytes: 256 << 20 } })
        .catch((error) => error);
      if (fine.includes(name)) expect(outcome).toEqual([expect.not.objectContaining({ name: expect.anything() })]);
      else {
        expect(outcome).toBeInstanceOf(ContainerError);
        expect(outcome.message).toMatch(/^cannot /);
        expect(empty()).toEqual(NOTHING);
        expect(store.list()).toEqual([]);
      }
      expect(incoming()).toEqual([]);
      expect(describeTree(canary)).toBe(before);
    },
    60_000,
  );

  test("a file that does not exist is said so", async () => {
    await expect(ImageStore.open(data).load("/no/such/file")).rejects.toMatchObject({
      code: "ENOENT",
      message: "cannot open /no/such/file: it does not exist",
    });
  });

  test("a layout with a changed blob is refused, whichever blob it is", async () => {
    const layout = join(directory, "layout");
    cpSync(fixtures.images.variants.layout, layout, { recursive: true });
    for (const name of readdirSync(join(layout, "blobs/sha256"))) {
      const path = join(layout, "blobs/sha256", name);
      const bytes = readFileSync(path);
      appendFileSync(path, "x");
      await expect(ImageStore.open(data).load(layout), name).rejects.toBeInstanceOf(ContainerError);
      const flipped = Buffer.from(bytes);
      flipped[bytes.length >> 1] = (flipped[bytes.length >> 1] ?? 0) ^ 1;
      writeFileSync(path, flipped);
      await expect(ImageStore.open(data).load(layout), name).rejects.toBeInstanceOf(ContainerError);
      writeFileSync(path, bytes);
      expect(empty()).toEqual(NOTHING);
    }
    await ImageStore.open(data).load(layout);
    expect(lstatSync(join(data, "oci/index.json")).isFile()).toBe(true);
  });
});
