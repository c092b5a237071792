import { print } from "../print.ts";
import { attend, checkInput } from "./client.ts";
import { addContainerOptions, type ContainerOptions, describeContainer } from "./container-options.ts";
import type { Define } from "./engine.ts";
import { watch } from "./watch.ts";

export const defineRun: Define = (program, { engine, exit }) => {
  addContainerOptions(program.command("run"))
    .description("make a container and run a command in it")
    .option("-d, --detach", "leave it running, and print its id")
    .option("--trace", "show every step on the error stream when the container is up")
    .argument("[image]", "name or id of an image, an archive, or a layout directory")
    .argument("[command...]", "what to run instead of the image's command")
    .passThroughOptions()
    .helpOption("--help", "show help")
    .action(async (image: string | undefined, command: string[], options: ContainerOptions & { trace?: boolean }) => {
      const words = image === undefined ? [] : [image, ...command];
      const container = await describeContainer(engine(), options, words);
      const { Tty: tty, OpenStdin: input } = container.config;
      if (options.detach !== true) checkInput(tty && input);
      const watched = await watch(engine().places, options.trace);
      const attachment = engine().run(container, {
        ...(options.detach === true ? {} : { attach: { input, foreground: true } }),
        ...(watched && { watch: watched.look }),
      });
      watched?.show();
      await watched?.send();
      if (attachment === undefined) return print(container.id);
      exit(attend(attachment, container));
      // whoever runs next may want the port
      if (container.hostConfig.PortBindings.length > 0 && engine().exit(container) !== undefined)
        engine().freePorts(container, attachment);
      attachment.close();
    });
};
