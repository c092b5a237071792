import { print } from "../print.ts";
import { forEachName } from "./each.ts";
import type { Define } from "./engine.ts";

export const defineWait: Define = (program, { engine, exit }) => {
  program
    .command("wait")
    .description("wait until containers have ended, and print their exit statuses")
    .argument("<container...>")
    .action((names: string[]) => {
      // all are connected to before the first is waited for: one that removes itself has nothing left to ask later
      const found = names.map((name) => {
        try {
          const container = engine().containers.find(name);
          return { container, attachment: engine().tryAttach(container, {}) };
        } catch (error) {
          return { error };
        }
      });
      exit(
        forEachName(names, (name) => {
          const { error, container, attachment } = found[names.indexOf(name)] ?? {};
          if (container === undefined) throw error;
          const said = attachment?.hear();
          print(String(said?.kind === "exited" ? said.status : (engine().exit(container)?.status ?? 125)));
        }),
      );
    });
};
