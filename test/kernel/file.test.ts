import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { afterAll, expect, test } from "vitest";
import { replaceFile } from "../../src/kernel/file.ts";

const directory = mkdtempSync(`${tmpdir()}/caisson-test-`);
const path = `${directory}/state.json`;
afterAll(() => rmSync(directory, { recursive: true }));

test("a file is made and replaced, for root alone, and nothing lies beside it", () => {
  for (const text of ["first", "the second one", "3"]) {
    replaceFile(path, text);
    expect(readFileSync(path, "utf8")).toBe(text);
    expect(readdirSync(directory)).toEqual(["state.json"]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  }
});

test("what a killed writer left beside it is nobody's harm", () => {
  replaceFile(path, "old");
  writeFileSync(`${path}.new`, "half of what somebody wanted to wri");
  replaceFile(path, "new");
  expect(readFileSync(path, "utf8")).toBe("new");
  expect(readdirSync(directory)).toEqual(["state.json"]);
});

test("whoever reads meanwhile finds one of them, whole", async () => {
  const texts = ["a".repeat(5000), "b".repeat(9000)] as const;
  replaceFile(path, texts[0]);
  const reader = spawn(
    process.execPath,
    [
      "-e",
      `const { readFileSync } = require("node:fs");
       const seen = new Set();
       process.stdin.once("data", () => { console.log(JSON.stringify([...seen])); process.exit(); });
       console.log("reads");
       const read = () => { const text = readFileSync(process.argv[1], "utf8"); seen.add(text[0] + text.length); setImmediate(read); };
       read();`,
      path,
    ],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  let said = "";
  reader.stdout.on("data", (chunk) => {
    said += chunk;
  });
  await once(reader.stdout, "data");
  for (let i = 0; i < 2000; i++) replaceFile(path, texts[i % 2] ?? "");
  reader.stdin.end("\n");
  await once(reader, "close");
  expect((JSON.parse(said.slice("reads\n".length)) as string[]).toSorted()).toEqual(["a5000", "b9000"]);
});
