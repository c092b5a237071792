import { readFileSync } from "node:fs";
import { detectHost } from "../../host/host.ts";
import { compile } from "../../plan/compile.ts";
import { explain, markdownExplanation, markdownNotes, renderExplanation, renderNotes } from "../../plan/explain.ts";
import { notes } from "../../plan/note.ts";
import { printJson, printRaw } from "../print.ts";
import { addContainerOptions, type ContainerOptions, describeContainer } from "./container-options.ts";
import type { Define } from "./engine.ts";

export const defineExplain: Define = (program, { engine }) => {
  addContainerOptions(program.command("explain"))
    .description("say step by step how a container would be made; nothing runs")
    .option("--json", "as JSON: steps, and notes about what is skipped or replaced on this host")
    .option("--markdown", "as a page of Markdown")
    .option("--verbose", "with the reason for each kind of step, where to read about it, and what it needs")
    .argument("[image]")
    .argument("[command...]")
    .passThroughOptions()
    .helpOption("--help", "show help")
    .action(
      async (
        image: string | undefined,
        command: string[],
        options: ContainerOptions & { json?: boolean; markdown?: boolean; verbose?: boolean },
      ) => {
        const container = await describeContainer(engine(), options, image === undefined ? [] : [image, ...command]);
        const verbose = options.verbose === true;
        const [definition, host] = [engine().define(container), detectHost()];
        const plan = compile(definition, host);
        const steps = explain(plan);
        const noted = notes(definition, host, plan, readFileSync("/proc/filesystems", "utf8"));
        if (options.json === true) printJson({ steps, notes: noted }, 2);
        else if (options.markdown === true) printRaw(markdownExplanation(steps, { verbose }) + markdownNotes(noted));
        else printRaw(renderExplanation(steps, { verbose, phases: true }) + renderNotes(noted));
      },
    );
};
