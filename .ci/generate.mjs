// Writes native/plan/steps.def from the vocabulary; with --check only says whether it is up to date.
import { readFileSync, writeFileSync } from "node:fs";

const { definitions } = await import(new URL("../dist/js/plan/definitions.js", import.meta.url));
const path = new URL("../native/plan/steps.def", import.meta.url);
const wanted = definitions();
if (process.argv.includes("--check")) {
  if (readFileSync(path, "utf8") !== wanted) {
    console.error("native/plan/steps.def is out of date: npm run generate");
    process.exitCode = 1;
  }
} else {
  writeFileSync(path, wanted);
}
