import { describe, expect, test } from "vitest";
import { digestHex, familiarReference, formatReference, parseReference } from "../../src/image/reference.ts";

const HEX = "0123456789abcdef".repeat(4);

describe("a reference", () => {
  test.each([
    ["debian", "docker.io/library/debian:latest", "debian:latest"],
    ["debian:12", "docker.io/library/debian:12", "debian:12"],
    ["grafana/loki:3.1", "docker.io/grafana/loki:3.1", "grafana/loki:3.1"],
    ["localhost/a", "localhost/a:latest", "localhost/a:latest"],
    ["localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x"],
    ["quay.io/a/b", "quay.io/a/b:latest", "quay.io/a/b:latest"],
    ["[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"],
    ["index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"],
    ["docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"],
    ["a__b/c-d.e---f", "docker.io/a__b/c-d.e---f:latest", "a__b/c-d.e---f:latest"],
    [`debian@sha256:${HEX}`, `docker.io/library/debian@sha256:${HEX}`, `debian@sha256:${HEX}`],
    [`debian:12@sha256:${HEX}`, `docker.io/library/debian:12@sha256:${HEX}`, `debian:12@sha256:${HEX}`],
  ])("%s is %s, said as %s", (text, full, familiar) => {
    const reference = parseReference(text);
    expect(formatReference(reference)).toBe(full);
    expect(familiarReference(reference)).toBe(familiar);
    expect(parseReference(full)).toEqual(reference);
    expect(parseReference(familiar)).toEqual(reference);
  });

  test.each([
    "",
    "Debian",
    "debian:",
    "debian:-x",
    `debian:${"x".repeat(129)}`,
    "a//b",
    "/a",
    "a/",
    "a___b",
    "a..b",
    "../../etc",
    "debian@sha256:abc",
    `debian@md5:${HEX}`,
    `debian@sha256:${HEX}/..`,
    `debian@sha256:${HEX.toUpperCase()}`,
    HEX,
    "a b",
    "debian\n",
    "-a.io/b",
    "x".repeat(250),
  ])("%j is refused", (text) => {
    expect(() => parseReference(text)).toThrowError(expect.objectContaining({ code: "ERR_REFERENCE" }));
  });
});

test("a digest is accepted only as it becomes a file name", () => {
  expect(digestHex(`sha256:${HEX}`)).toBe(HEX);
  for (const digest of [
    HEX,
    `sha256:${HEX}0`,
    `sha256:../${HEX}`,
    `sha512:${HEX}${HEX}`,
    `SHA256:${HEX}`,
    `sha256:${HEX}\n`,
    7,
  ])
    expect(() => digestHex(digest), String(digest)).toThrowError(expect.objectContaining({ code: "ERR_DIGEST" }));
});
