// Writes what the vocabulary says of itself: native/plan/steps.def for init, src/plan/STEPS.md for people; with --check
// only says whether they are up to date.
import { readFileSync, writeFileSync } from "node:fs";

const { definitions } = await import(new URL("../dist/js/plan/definitions.js", import.meta.url));
const { reference } = await import(new URL("../dist/js/plan/reference.js", import.meta.url));
for (const [name, wanted] of [
  ["native/plan/steps.def", definitions()],
  ["src/plan/STEPS.md", reference()],
]) {
  const path = new URL(`../${name}`, import.meta.url);
  if (!process.argv.includes("--check")) {
    writeFileSync(path, wanted);
  } else if (readFileSync(path, "utf8") !== wanted) {
    console.error(`${name} is out of date: npm run generate`);
    process.exitCode = 1;
  }
}
