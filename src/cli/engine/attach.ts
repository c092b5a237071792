import { attend, checkInput, redraw } from "./client.ts";
import type { Define } from "./engine.ts";

export const defineAttach: Define = (program, { engine, exit }) => {
  program
    .command("attach")
    .description(
      "connect to a running container: its output here, our input and signals there; Ctrl-P Ctrl-Q leaves it",
    )
    .argument("<container>")
    .action((name: string) => {
      const container = engine().containers.find(name);
      const { Tty: tty, OpenStdin: input } = container.config;
      checkInput(tty && input);
      const attachment = engine().attach(container, { output: true, input });
      if (tty) redraw(attachment);
      exit(attend(attachment, container));
    });
};
