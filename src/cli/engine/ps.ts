import { InvalidArgumentError } from "commander";
import type { ContainerJson } from "../../engine/config.ts";
import type { Engine, EngineStatus } from "../../engine/engine.ts";
import { printListing, type Row } from "../listing.ts";
import { print } from "../print.ts";
import type { Define } from "./engine.ts";
import { ago } from "./time.ts";

interface Options {
  all?: boolean;
  quiet?: boolean;
  trunc: boolean;
  filter: Filter[];
  last?: number;
  latest?: boolean;
  format: string;
}

/** A container, and what is asked of each that is listed. */
interface Listed {
  container: ContainerJson;
  status: EngineStatus;
  exitStatus: number | undefined;
}

type Filter = { key: string; value: string };

const FILTERS: { [key: string]: (listed: Listed, value: string) => boolean } = {
  id: ({ container }, value) => container.id.startsWith(value),
  name: ({ container }, value) => [container.name, `/${container.name}`].some((name) => new RegExp(value).test(name)),
  status: ({ status }, value) => status === value,
  exited: ({ exitStatus, status }, value) => status === "exited" && String(exitStatus) === value,
  ancestor: ({ container }, value) => [container.image, container.image.replace(/:latest$/, "")].includes(value),
  network: ({ container }, value) => container.hostConfig.NetworkMode === value,
  volume: ({ container }, value) =>
    container.mounts.some(({ Name, Source, Destination }) => [Name, Source, Destination].includes(value)),
  label: ({ container }, value) => {
    const [name = "", ...wanted] = value.split("=");
    const { Labels } = container.config;
    return Object.hasOwn(Labels, name) && (wanted.length === 0 || Labels[name] === wanted.join("="));
  },
};

function parseFilter(text: string, before: Filter[]): Filter[] {
  const [key = "", ...value] = text.split("=");
  if (!Object.hasOwn(FILTERS, key) || value.length === 0)
    throw new InvalidArgumentError(`it must be one of ${Object.keys(FILTERS).join(", ")}, = and a value.`);
  if (key === "name" && !isPattern(value.join("="))) throw new InvalidArgumentError("it is no regular expression.");
  return [...before, { key, value: value.join("=") }];
}

function isPattern(text: string): boolean {
  try {
    return new RegExp(text) instanceof RegExp;
  } catch {
    return false;
  }
}

/** Filters of one kind are alternatives, all kinds must hold; labels must all hold. */
function passes(listed: Listed, filters: readonly Filter[]): boolean {
  const holds = ({ key, value }: Filter) => FILTERS[key]?.(listed, value) === true;
  return filters.every((filter) =>
    filter.key === "label" ? holds(filter) : filters.some((other) => other.key === filter.key && holds(other)),
  );
}

function parseLast(text: string): number {
  if (!/^-?\d+$/.test(text)) throw new InvalidArgumentError("it must be a whole number.");
  return Number(text);
}

const TITLES = {
  ID: "CONTAINER ID",
  Image: "IMAGE",
  Command: "COMMAND",
  CreatedAt: "CREATED AT",
  RunningFor: "CREATED",
  Status: "STATUS",
  State: "STATE",
  Ports: "PORTS",
  Names: "NAMES",
  Labels: "LABELS",
  Mounts: "MOUNTS",
  Networks: "NETWORKS",
};
const COLUMNS = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];

export const definePs: Define = (program, { engine }) => {
  program
    .command("ps")
    .description("list containers")
    .option("-a, --all", "also those that have ended")
    .option("-q, --quiet", "ids only")
    .option("--no-trunc", "whole ids and commands")
    .option("-f, --filter <key=value>", `only some: ${Object.keys(FILTERS).join(", ")}`, parseFilter, [])
    .option("-n, --last <number>", "only the newest, whether they run or not", parseLast)
    .option("-l, --latest", "only the newest one")
    .option("--format <format>", "table, json, or a template such as '{{.Names}} {{.Status}}'", "table")
    .action(({ all = false, quiet, trunc, filter, last, latest, format }: Options) => {
      engine().recover();
      const newest = latest === true ? 1 : last === undefined || last < 0 ? undefined : last;
      const everything = all || newest !== undefined || filter.some(({ key }) => key === "status" || key === "exited");
      const listed = engine()
        .containers.list()
        .map((container) => {
          const status = engine().status(container);
          return { container, status, exitStatus: engine().exit(container)?.status };
        })
        .filter(
          ({ container, status }) =>
            status === "running" ||
            status === "paused" ||
            // one that removes itself is as good as gone when it has ended
            (everything && !(status === "exited" && container.hostConfig.AutoRemove)),
        )
        .filter((each) => passes(each, filter))
        .slice(0, newest);
      if (quiet === true) for (const { container } of listed) print(trunc ? container.id.slice(0, 12) : container.id);
      else
        printListing(
          listed.map((each) => row(engine(), each, trunc)),
          { titles: TITLES, columns: COLUMNS },
          format,
        );
    });
};

function row(engine: Engine, { container, status, exitStatus }: Listed, short: boolean): Row {
  const { id, image, config, created, name, hostConfig, mounts } = container;
  const exit = engine.exit(container);
  const words = {
    running: `Up ${ago(created)}`,
    paused: `Up ${ago(created)} (Paused)`,
    exited: `Exited (${exitStatus ?? "unknown"}) ${exit === undefined ? "" : `${ago(exit.finishedAt)} ago`}`,
    created: "Created",
  };
  const command = [...config.Entrypoint, ...config.Cmd].join(" ");
  return {
    ID: short ? id.slice(0, 12) : id,
    Image: image,
    Command: JSON.stringify(short ? command.slice(0, 30) : command),
    CreatedAt: created,
    RunningFor: `${ago(created)} ago`,
    State: status,
    Status: words[status].trim(),
    Ports: (engine.endpoint(container)?.ports ?? [])
      .map(
        ({ hostAddress, hostPort, containerPort, protocol }) =>
          `${hostAddress}:${hostPort}->${containerPort}/${protocol}`,
      )
      .join(", "),
    Names: name,
    Labels: Object.entries(config.Labels)
      .map(([label, value]) => `${label}=${value}`)
      .join(","),
    Mounts: mounts.map(({ Name, Source }) => (short ? (Name ?? Source).slice(0, 15) : (Name ?? Source))).join(","),
    Networks: hostConfig.NetworkMode,
  };
}
