/**
 * Archives that an attacker, or a broken disk, would hand us. Two tables: layers that are evil in themselves,
 * each put in an archive that is fine, and archives that are evil around layers that are fine.
 * canary is an absolute path of the host that nothing may touch.
 */
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { base256, writeMember, writePaxRecord, writeTar } from "../tar.mjs";
import { archive, digest, dockerFiles, ociFiles } from "./image.mjs";

const EVIL = Buffer.from("evil\n");
const file = (path, more = {}) => ({ path, type: "file", content: EVIL, ...more });
const directory = (path, more = {}) => ({ path, type: "directory", ...more });
const symlink = (path, target, more = {}) => ({ path, type: "symlink", target, ...more });
const hardlink = (path, target, more = {}) => ({ path, type: "hardlink", target, ...more });
const up = "../".repeat(24);
const below = (path) => up + path.slice(1);
const tars = (...layers) => layers.map((members) => writeTar(members));
const withPax = (pax) => tars([file("named", { rawPax: Buffer.from(pax) })]);

/** name → canary → uncompressed layers, lowest first. */
export const MALICIOUS_LAYERS = {
  "parent member": (canary) => tars([file(`${below(canary)}/escaped`)]),
  "parent member inside": (canary) => tars([directory("a"), file(`a/b/../../${below(canary)}/escaped`)]),
  "absolute member": (canary) => tars([file(`${canary}/escaped`)]),
  "dot-dot directory": () => tars([directory("..", { mode: "0777", uid: 4242 })]),
  "root as symlink": (canary) => tars([symlink("./", canary, { typeFlag: "2" }), file("escaped")]),
  "root as file": () => tars([file("./")]),
  "empty name": () => tars([file("")]),
  "zero byte in name": () => withPax(writePaxRecord("path", "good\0/../../evil")),
  "hard link to parent": (canary) => tars([hardlink("stolen", `${below(canary)}/kept`)]),
  "hard link to absolute": (canary) => tars([hardlink("stolen", `${canary}/kept`)]),
  "hard link through symlink": (canary) =>
    tars([symlink("way", canary), hardlink("stolen", "way/kept"), file("stolen", { mode: "0777" })]),
  "hard link to symlink, then written": (canary) =>
    tars([symlink("way", `${canary}/kept`), hardlink("alias", "way"), file("alias")]),
  "hard link to nothing": () => tars([hardlink("alias", "no/such/file")]),
  "hard link to itself": () => tars([hardlink("alias", "alias")]),
  "hard link to directory": () => tars([directory("a"), hardlink("b", "a")]),
  "symlink as parent": (canary) => tars([symlink("way", canary), file("way/escaped")]),
  "relative symlink as parent": (canary) => tars([symlink("way", below(canary)), file("way/escaped")]),
  "symlink as parent across layers": (canary) => tars([symlink("way", canary)], [file("way/escaped")]),
  "symlink chain as parent": (canary) =>
    tars([symlink("a", ".."), symlink("b", "a/.."), symlink("c", `b/${below(canary)}`), file("c/escaped")]),
  "symlink as parent of a directory": (canary) => tars([symlink("way", canary), directory("way/made/deep")]),
  "symlink as parent of a device": (canary) =>
    tars([symlink("way", canary), { path: "way/null", type: "character", device: "1:3" }]),
  "file written through symlink": (canary) => tars([symlink("way", `${canary}/kept`), file("way")]),
  "directory over symlink": (canary) => tars([symlink("way", canary), directory("way", { mode: "0777", uid: 4242 })]),
  "directory, then symlink, then file": (canary) =>
    tars([directory("way"), file("way/first"), symlink("way", canary), file("way/escaped")]),
  "whiteout through symlink": (canary) => tars([symlink("way", canary)], [file("way/.wh.kept")]),
  "opaque through symlink": (canary) => tars([symlink("way", canary)], [file("way/.wh..wh..opq")]),
  "whiteout of dot and dot-dot": () => tars([file(".wh..")], [file("a/.wh...")]),
  "whiteout of nothing": () => tars([file("a/.wh.")]),
  "whiteout that is a directory": () => tars([file("a/kept")], [directory("a/.wh.kept"), file("a/.wh.kept/inside")]),
  "whiteout that is a device": () => tars([file("a/kept")], [{ path: "a/.wh.kept", type: "character", device: "1:3" }]),
  "overlay's own whiteout": () => tars([file("a/kept")], [{ path: "a/kept", type: "character", device: "0:0" }]),
  "overlay's own attributes": () =>
    tars([
      directory("a", {
        xattrs: {
          "trusted.overlay.opaque": "79",
          "trusted.overlay.redirect": Buffer.from("/etc").toString("hex"),
          "user.overlay.opaque": "79",
        },
      }),
    ]),
  "duplicate entries": () => tars([file("twice"), file("twice", { content: Buffer.from("second\n") })]),
  "file as parent": () => tars([file("a"), file("a/b")]),
  "negative size": () => tars([file("negative", { rawSize: base256(-1n, 12) })]),
  "huge size": () => tars([file("huge", { rawSize: base256((1n << 63n) - 1n, 12) })]),
  "size of more than 64 bits": () => tars([file("huge", { rawSize: base256(1n << 80n, 12) })]),
  "size that is not octal": () => tars([file("size", { rawSize: Buffer.from("0000000009x\0") })]),
  "size beyond the archive": () => tars([file("short", { rawSize: Buffer.from("00001000000\0") })]),
  "pax length beyond the record": () => withPax("99999999 path=evil\n"),
  "pax length of many digits": () => withPax(`${"9".repeat(400)} path=evil\n`),
  "pax length zero": () => withPax("0 path=evil\n"),
  "pax length negative": () => withPax("-5 path=evil\n"),
  "pax record without end": () => withPax("13 path=evilX"),
  "pax record without equals": () => withPax("9 pathhh\n"),
  "pax header of one GiB": () =>
    tars([file("named", { rawPax: writePaxRecord("path", "x"), rawPaxSize: Buffer.from("10000000000\0") })]),
  "pax size negative": () => withPax(writePaxRecord("size", "-1")),
  "pax path escapes": (canary) => withPax(writePaxRecord("path", `${below(canary)}/escaped`)),
  "pax attribute of 2 MiB": () => withPax(writePaxRecord("SCHILY.xattr.user.big", Buffer.alloc(2 << 20, 120))),
  "long name of one GiB": () => tars([file("././@LongLink", { typeFlag: "L", rawSize: Buffer.from("10000000000\0") })]),
  "path of 8000 bytes": () => tars([file(Array(40).fill("d".repeat(200)).join("/"), { format: "gnu" })]),
  "name of 300 bytes": () => tars([file("n".repeat(300), { format: "gnu" })]),
  "500 directories deep": () => tars([file(`${"d/".repeat(500)}end`, { format: "gnu" })]),
  "unknown type": () => tars([file("odd", { typeFlag: "Q" })]),
  "bad checksum": () => tars([file("odd", { badChecksum: true })]),
  "text in place of tar": () => [Buffer.alloc(2048, "this is no archive ")],
  "no end blocks": () => [Buffer.concat(writeMember(file("cut")))],
  "cut in a header": () => [writeTar([file("cut")]).subarray(0, 300)],
  "cut in the content": () => [writeTar([file("cut", { content: Buffer.alloc(4096, 1) })]).subarray(0, 2000)],
  "sparse bomb": () => tars([sparse("1.0", Number.MAX_SAFE_INTEGER, [[0, "a"]])]),
  "sparse bomb, old format": () => tars([sparse("old", 2 ** 36, [[0, "a"]])]),
  "sparse segments that overlap": () =>
    tars([
      sparse("1.0", 4096, [
        [0, "abcdef"],
        [2, "xyz"],
      ]),
    ]),
  "sparse segments out of order": () =>
    tars([
      sparse("0.1", 4096, [
        [2048, "a"],
        [0, "b"],
      ]),
    ]),
  "sparse segment beyond the end": () => tars([sparse("1.0", 10, [[4096, "a"]])]),
  "sparse segment longer than the data": () =>
    tars([
      {
        path: "sparse",
        type: "sparse",
        sparse: "old",
        sizeBytes: 1 << 20,
        segments: [{ offset: 0, text: "a", lengthBytes: 1 << 19 }],
      },
    ]),
};

function sparse(format, sizeBytes, segments) {
  return {
    path: "sparse",
    type: "sparse",
    sparse: format,
    sizeBytes,
    segments: segments.map(([offset, text]) => ({ offset, text })),
  };
}

// Bytes that no compression makes smaller, so that cutting the archive cuts the layer.
const NOISE = Buffer.concat(Array.from({ length: 512 }, (_, i) => createHash("sha256").update(`${i}`).digest()));
const fine = () => ({
  name: "caisson/malicious:latest",
  config: { Cmd: ["/bin/true"] },
  layers: [writeTar([file("fine", { content: NOISE })])],
});
const edit = (files, path, change) =>
  files.map(([name, bytes]) => (name === path ? [name, change(bytes)] : [name, bytes]));
const editJson = (files, path, change) =>
  edit(files, path, (bytes) => {
    const value = JSON.parse(bytes);
    return Buffer.from(JSON.stringify(change(value) ?? value));
  });
const ociManifest = (files) => JSON.parse(blob(files, indexOf(files).manifests[0].digest));
const indexOf = (files) => JSON.parse(files.find(([path]) => path === "index.json")[1]);
const blobPath = (name) => `blobs/sha256/${name.slice(7)}`;
const blob = (files, name) => files.find(([path]) => path === blobPath(name))[1];
const flip = (bytes) => {
  const changed = Buffer.from(bytes);
  changed[changed.length >> 1] ^= 1;
  return changed;
};

/** A layout whose manifest is changed, with the digests above it put right, and further blobs. */
function editManifest(change, blobs = []) {
  const files = ociFiles([fine()], "gzip");
  const index = indexOf(files);
  const manifest = ociManifest(files);
  change(manifest);
  const bytes = Buffer.from(JSON.stringify(manifest));
  Object.assign(index.manifests[0], { digest: digest(bytes), size: bytes.length });
  return [
    ...edit(files, "index.json", () => Buffer.from(JSON.stringify(index))),
    ...[bytes, ...blobs].map((content) => [blobPath(digest(content)), content]),
  ];
}

/**
 * A layout with one gzip layer: head, then the block so many times. gzip members may follow each other
 * (RFC 1952, 2.2), so the bomb is made as fast as it is written. The digest of the blob is right; the
 * digest of its content is not, since finding that would mean unpacking it.
 */
function bomb(head, block, times) {
  const part = gzipSync(block, { level: 9 });
  const layer = Buffer.concat([gzipSync(head), ...Array.from({ length: times }, () => part)]);
  return editManifest(
    (manifest) => Object.assign(manifest.layers[0], { digest: digest(layer), size: layer.length }),
    [layer],
  );
}

/** name → canary → bytes of the archive. */
export const MALICIOUS_ARCHIVES = {
  "empty file": () => Buffer.alloc(0),
  "cut in the middle": () => half(archive(dockerFiles([fine()]))),
  "cut in the middle, OCI": () => half(archive(ociFiles([fine()], "gzip"))),
  "layer cut": () => archive(editDockerLayer(half)),
  "compressed layer cut": () => archive(editLayer(half)),
  "layer with a flipped bit": () => archive(editLayer(flip)),
  "layer that is not gzip": () => archive(editLayer(() => Buffer.from("no gzip at all"))),
  "docker layer with another digest": () => archive(editDockerLayer(flip)),
  "config with a flipped bit": () => {
    const files = ociFiles([fine()], "gzip");
    return archive(edit(files, blobPath(ociManifest(files).config.digest), flip));
  },
  "wrong size in the manifest": () =>
    archive(
      editManifest((manifest) => {
        manifest.layers[0].size += 1;
      }),
    ),
  "digest that is a path": (canary) =>
    archive(
      editManifest((manifest) => {
        manifest.layers[0].digest = `sha256:${below(canary)}/kept`;
      }),
    ),
  "digest of an unknown algorithm": () =>
    archive(
      editManifest((manifest) => {
        manifest.layers[0].digest = `md5:${"0".repeat(32)}`;
      }),
    ),
  "layer missing": () =>
    archive(
      editManifest((manifest) => {
        manifest.layers[0].digest = `sha256:${"0".repeat(64)}`;
      }),
    ),
  "more layers than the config says": () =>
    archive(
      editManifest((manifest) => {
        manifest.layers.push(manifest.layers[0]);
      }),
    ),
  "unknown media type": () =>
    archive(
      editManifest((manifest) => {
        manifest.layers[0].mediaType = "application/x-evil";
      }),
    ),
  // CVE-2021-41190: one document, read as a manifest by one program and as an index by another.
  "manifest and index in one": () =>
    archive(
      editManifest((manifest) => {
        manifest.manifests = [];
      }),
    ),
  "manifest missing": () => archive(dockerFiles([fine()]).filter(([path]) => path !== "manifest.json")),
  "manifest is not JSON": () => archive(edit(dockerFiles([fine()]), "manifest.json", () => Buffer.from("[{"))),
  "manifest of the wrong shape": () =>
    archive(edit(dockerFiles([fine()]), "manifest.json", () => Buffer.from('[{"Config":7,"Layers":"x"}]'))),
  "manifest of 64 MiB": () =>
    archive(
      edit(dockerFiles([fine()]), "manifest.json", (bytes) => Buffer.concat([Buffer.alloc(64 << 20, " "), bytes])),
    ),
  "layer path escapes": (canary) =>
    archive(
      editJson(dockerFiles([fine()]), "manifest.json", (images) => {
        images[0].Layers = [`${below(canary)}/kept`];
      }),
    ),
  "config path escapes": (canary) =>
    archive(
      editJson(dockerFiles([fine()]), "manifest.json", (images) => {
        images[0].Config = `${below(canary)}/kept`;
      }),
    ),
  "layer is a symlink": (canary) => {
    const files = dockerFiles([fine()]);
    const path = files.find(([name]) => name.endsWith("/layer.tar"))[0];
    return writeTar([
      ...files.filter(([name]) => name !== path).map(([name, content]) => ({ path: name, type: "file", content })),
      symlink(path, `${canary}/kept`),
    ]);
  },
  "image name that is a path": () =>
    archive(
      editJson(dockerFiles([fine()]), "manifest.json", (images) => {
        images[0].RepoTags = ["../../../etc:latest"];
      }),
    ),
  "gzip bomb of 16 GiB": () => {
    const size = 16 * 2 ** 30;
    const head = writeMember(file("zeros", { content: Buffer.alloc(0), rawSize: base256(size, 12) }))[0];
    return archive(bomb(head, Buffer.alloc(64 << 20), 256));
  },
  "two million entries": () => {
    const entries = Array.from({ length: 10_000 }, (_, i) =>
      writeMember(file(`many/${i}`, { content: Buffer.alloc(0) })),
    );
    return archive(bomb(Buffer.alloc(0), Buffer.concat(entries.flat()), 200));
  },
};

function half(bytes) {
  return bytes.subarray(0, bytes.length >> 1);
}

function editDockerLayer(change) {
  const files = dockerFiles([fine()]);
  return edit(files, files.find(([path]) => path.endsWith("/layer.tar"))[0], change);
}

function editLayer(change) {
  const files = ociFiles([fine()], "gzip");
  return edit(files, blobPath(ociManifest(files).layers[0].digest), change);
}

/** The bytes of the archive of that name, of either table; an evil layer comes as a docker archive. */
export function maliciousArchive(name, canary) {
  const whole = MALICIOUS_ARCHIVES[name];
  if (whole !== undefined) return whole(canary);
  const layers = MALICIOUS_LAYERS[name]?.(canary);
  if (layers === undefined) throw new Error(`no malicious archive is called "${name}"`);
  return archive(dockerFiles([{ ...fine(), layers }]));
}
