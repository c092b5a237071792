// node test/vm/run.mjs [--kernel 6.1] [--systemd] [--timeout SECONDS] COMMAND…: runs it in the guest, and ends as it did.
import { parseArgs } from "node:util";
import { missingPrograms, runInGuest } from "./machine.mjs";

const own = process.argv.slice(2);
const first = own.findIndex(
  (word, index) => !word.startsWith("-") && !["--kernel", "--timeout"].includes(own[index - 1]),
);
const { values } = parseArgs({
  args: first < 0 ? own : own.slice(0, first),
  options: { kernel: { type: "string" }, systemd: { type: "boolean" }, timeout: { type: "string" } },
});
const words = first < 0 ? [] : own.slice(first);
const missing = missingPrograms();
if (missing.length > 0 || words.length === 0) {
  console.error(missing.length > 0 ? `vm: not installed: ${missing.join(", ")}` : "vm: no command");
  process.exit(2);
}
try {
  const { kernel, systemd, timeout } = values;
  process.exitCode = await runInGuest(words, {
    ...(kernel === undefined ? {} : { kernel }),
    ...(timeout === undefined ? {} : { timeoutS: Number(timeout) }),
    systemd: systemd === true,
  });
} catch (error) {
  console.error(`vm: ${error.message}`);
  process.exitCode = 125;
}
