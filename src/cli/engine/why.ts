import { findFailure } from "../../engine/recordings.ts";
import { lookAround } from "../../why/look.ts";
import { renderWhy, why } from "../../why/why.ts";
import { printJson, printRaw } from "../print.ts";
import type { Define } from "./engine.ts";

export const defineWhy: Define = (program, { engine }) => {
  program
    .command("why")
    .description("explain the last failure: what was asked, what the kernel checks there, what on this host refuses it")
    .option("--json", "as JSON")
    .argument("[container]", "name or id of one that failed; CONTAINER:exec is the process that was added to it last")
    .addHelpText(
      "after",
      "\nIt looks at the host as it is now, and changes nothing. Containers of caisson-runtime are found, too: --root names their\nstate directory, before the command (caisson --root DIRECTORY why).",
    )
    .action((word: string | undefined, { json }: { json?: boolean }) => {
      const { recording, failure } = findFailure(engine().places, word);
      const answer = why(recording, failure, lookAround());
      if (json === true) printJson(answer, 2);
      else printRaw(renderWhy(answer));
    });
};
