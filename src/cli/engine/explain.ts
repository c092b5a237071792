import { explain, renderExplanation } from "../../plan/explain.ts";
import { printJson, printRaw } from "../print.ts";
import { addContainerOptions, type ContainerOptions, describeContainer } from "./container-options.ts";
import type { Define } from "./engine.ts";

export const defineExplain: Define = (program, { engine }) => {
  addContainerOptions(program.command("explain"))
    .description("say step by step how a container would be made; nothing runs")
    .option("--json", "as JSON")
    .option("--verbose", "with the reason for each step")
    .argument("[image]")
    .argument("[command...]")
    .passThroughOptions()
    .helpOption("--help", "show help")
    .action(
      async (
        image: string | undefined,
        command: string[],
        options: ContainerOptions & { json?: boolean; verbose?: boolean },
      ) => {
        const container = await describeContainer(engine(), options, image === undefined ? [] : [image, ...command]);
        const explanations = explain(engine().explain(container));
        if (options.json === true) printJson(explanations, 2);
        else printRaw(renderExplanation(explanations, { verbose: options.verbose === true }));
      },
    );
};
