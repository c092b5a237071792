import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { enterClass, makeClass, removeClass } from "../../src/execute/resctrl.ts";

// An ordinary directory stands for resctrl: the kernel would put the files of a class there by itself.

let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "caisson-resctrl-"));
});
afterEach(() => rmSync(root, { recursive: true }));

/** A class that is there, as the kernel writes its schemata. */
function present(schemata: string): string {
  const path = join(root, "gold");
  mkdirSync(path);
  writeFileSync(join(path, "schemata"), schemata);
  writeFileSync(join(path, "tasks"), "");
  return path;
}

describe("a class that is there already", () => {
  const schemata = "    MB:0= 20;1=100\n    L3:0=00f;1=7ff\n";

  test.each([[["L3:0=f"]], [["L3:0=f;1=7ff", "MB:1=100"]], [["MB:0=20"]], [[]]])(
    "is taken if it is as described: %j",
    (wanted) => {
      const path = present(schemata);
      expect(() => makeClass(path, wanted)).not.toThrow();
      expect(readFileSync(join(path, "schemata"), "utf8")).toBe(schemata);
    },
  );

  test.each([[["L3:0=ff"]], [["L3:2=f"]], [["L2:0=f"]], [["L3:0=f", "MB:0=30"]]])(
    "is refused if it is not: %j",
    (wanted) => {
      const path = present(schemata);
      expect(() => makeClass(path, wanted)).toThrow(/with other schemata than/);
      expect(readFileSync(join(path, "schemata"), "utf8")).toBe(schemata);
    },
  );
});

test("a process enters by its pid, and a class that is not there cannot be entered", () => {
  const path = present("");
  enterClass(path, 4242);
  expect(readFileSync(join(path, "tasks"), "utf8")).toBe("4242");
  expect(() => enterClass(join(root, "none"), 1)).toThrow(expect.objectContaining({ code: "ENOENT" }));
});

test("a class is removed, twice if need be", () => {
  const path = join(root, "own");
  makeClass(path, []);
  expect(existsSync(path)).toBe(true);
  removeClass(path);
  removeClass(path);
  expect(existsSync(path)).toBe(false);
});
