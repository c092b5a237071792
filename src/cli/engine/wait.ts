import { print } from "../print.ts";
import type { Define } from "./engine.ts";

export const defineWait: Define = (program, { engine }) => {
  program
    .command("wait")
    .description("wait until containers have ended, and print their exit statuses")
    .argument("<container...>")
    .action((names: string[]) => {
      const containers = names.map((name) => engine().containers.find(name));
      for (const container of containers) {
        const said = engine().tryAttach(container, {})?.hear();
        print(String(said?.kind === "exited" ? said.status : (engine().exit(container)?.status ?? 125)));
      }
    });
};
