import { explain, markdownExplanation, renderExplanation } from "../../plan/explain.ts";
import { printJson, printRaw } from "../print.ts";
import { addContainerOptions, type ContainerOptions, describeContainer } from "./container-options.ts";
import type { Define } from "./engine.ts";

export const defineExplain: Define = (program, { engine }) => {
  addContainerOptions(program.command("explain"))
    .description("say step by step how a container would be made; nothing runs")
    .option("--json", "as JSON")
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
        const explanations = explain(engine().explain(container));
        if (options.json === true) printJson(explanations, 2);
        else if (options.markdown === true) printRaw(markdownExplanation(explanations, { verbose }));
        else printRaw(renderExplanation(explanations, { verbose, phases: true }));
      },
    );
};
