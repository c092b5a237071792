import type { ContainerJson } from "../../engine/config.ts";
import type { Engine } from "../../engine/engine.ts";
import { print, printJson, printTable } from "../print.ts";
import type { Define } from "./engine.ts";
import { ago } from "./time.ts";

export const definePs: Define = (program, { engine }) => {
  program
    .command("ps")
    .description("list containers")
    .option("-a, --all", "also those that have ended")
    .option("-q, --quiet", "ids only")
    .option("--format <format>", "table or json", "table")
    .action(({ all, quiet, format }: { all?: boolean; quiet?: boolean; format: string }) => {
      engine().recover();
      const listed = engine()
        .containers.list()
        .map((container) => ({ container, status: engine().status(container) }))
        .filter(
          ({ container, status }) =>
            status === "running" ||
            status === "paused" ||
            // one that removes itself is as good as gone when it has ended
            (all === true && !(status === "exited" && container.hostConfig.AutoRemove)),
        );
      if (quiet === true) for (const { container } of listed) print(container.id.slice(0, 12));
      else if (format === "json") for (const { container } of listed) printJson(row(engine(), container));
      else
        printTable(
          ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME"],
          listed.map(({ container }) => Object.values(row(engine(), container))),
        );
    });
};

function row(engine: Engine, container: ContainerJson) {
  const { id, image, config, created, name } = container;
  const exit = engine.exit(container);
  const status = engine.status(container);
  const words = {
    running: `Up ${ago(created)}`,
    paused: `Up ${ago(created)} (Paused)`,
    exited: `Exited (${exit?.status ?? "unknown"}) ${exit === undefined ? "" : `${ago(exit.finishedAt)} ago`}`,
    created: "Created",
  };
  return {
    id: id.slice(0, 12),
    image,
    command: JSON.stringify([...config.Entrypoint, ...config.Cmd].join(" ").slice(0, 30)),
    created: `${ago(created)} ago`,
    status: words[status].trim(),
    ports: (engine.endpoint(container)?.ports ?? [])
      .map(
        ({ hostAddress, hostPort, containerPort, protocol }) =>
          `${hostAddress}:${hostPort}->${containerPort}/${protocol}`,
      )
      .join(", "),
    name,
  };
}
