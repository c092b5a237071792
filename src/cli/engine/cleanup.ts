import type { Define } from "./engine.ts";

/** What the monitor starts when its container has ended. */
export const defineCleanup: Define = (program, { engine }) => {
  program
    .command("cleanup", { hidden: true })
    .argument("<id>")
    .action((id: string) => engine().cleanup(id));
};
