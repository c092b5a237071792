import { existsSync, statSync } from "node:fs";
import type { ContainerJson } from "../../engine/config.ts";
import type { Engine } from "../../engine/engine.ts";
import { ContainerError } from "../../error.ts";
import { familiarReference, parseReference } from "../../image/reference.ts";
import { ImageStore } from "../../image/store.ts";
import type { BridgeEndpoint } from "../../network/bridge.ts";
import { type PortBinding, parsePublish } from "../../network/ports.ts";
import { print, printJson } from "../print.ts";
import { parseTemplate } from "../template.ts";
import { forEachName } from "./each.ts";
import type { Define } from "./engine.ts";

export const defineInspect: Define = (program, { engine, exit }) => {
  program
    .command("inspect")
    .description("print all that is known of containers, or of images, as JSON")
    .option("-f, --format <template>", "only this, such as '{{.State.Pid}}' or '{{json .Config}}'", "json")
    .argument("<container...>", "name or id of a container or an image")
    .action((names: string[], { format }: { format: string }) => {
      const render = format === "json" ? undefined : parseTemplate(format);
      const found: unknown[] = [];
      const status = forEachName(names, (name) => {
        const inspected = inspect(engine(), name);
        if (render === undefined) found.push(inspected);
        else print(render(inspected));
      });
      if (found.length > 0) printJson(found, 4);
      exit(status);
    });
};

function inspect(engine: Engine, name: string): unknown {
  try {
    return ofContainer(engine, engine.containers.find(name));
  } catch (error) {
    if (!(error instanceof ContainerError && error.code === "ENOENT")) throw error;
    try {
      return ofImage(ImageStore.open(engine.places.data), name);
    } catch {
      throw error;
    }
  }
}

const NEVER = "0001-01-01T00:00:00Z";

function ofContainer(engine: Engine, container: ContainerJson) {
  const { id, config, hostConfig, root } = container;
  const status = engine.status(container);
  const running = status === "running" || status === "paused";
  const exit = engine.exit(container);
  const directory = engine.containers.directory(id);
  const [path = "", ...args] = [...config.Entrypoint, ...config.Cmd];
  const file = (name: string) => (root.kind === "image" ? `${directory}/${name}` : "");
  return {
    Id: id,
    Name: `/${container.name}`,
    Created: container.created,
    Path: path,
    Args: args,
    Image: container.imageId,
    State: {
      Status: status,
      Running: running,
      Paused: status === "paused",
      Restarting: false,
      Dead: false,
      Pid: running ? engine.running(container).record.pid : 0,
      OOMKilled: exit?.oomKilled ?? false,
      ExitCode: exit?.status ?? 0,
      Error: "",
      StartedAt: startedAt(`${directory}/started`),
      FinishedAt: exit?.finishedAt ?? NEVER,
    },
    RestartCount: 0,
    Platform: "linux",
    Driver: root.kind === "image" ? root.driver : "",
    ResolvConfPath: file("resolv.conf"),
    HostnamePath: file("hostname"),
    HostsPath: file("hosts"),
    LogPath: `${directory}/log`,
    Config: { ...config, Image: container.image },
    HostConfig: { ...hostConfig, PortBindings: portBindings(hostConfig.PortBindings) },
    GraphDriver: root.kind === "image" ? { Name: root.driver, Data: { LowerDir: root.layers.join(":") } } : null,
    Mounts: container.mounts,
    NetworkSettings: networkSettings(engine.endpoint(container), hostConfig.NetworkMode),
  };
}

/** When the monitor was told that the container runs. */
function startedAt(path: string): string {
  return existsSync(path) ? statSync(path).mtime.toISOString() : NEVER;
}

type Ports = { [port: string]: { HostIp: string; HostPort: string }[] };

/** Docker's form: "80/tcp" → where it is reached. */
function portMap(bindings: readonly PortBinding[], words: (binding: PortBinding) => Ports[string][number]): Ports {
  const ports: Ports = {};
  for (const binding of bindings) {
    const port = `${binding.containerPort}/${binding.protocol}`;
    ports[port] = [...(ports[port] ?? []), words(binding)];
  }
  return ports;
}

/** As it was asked for; no port: whichever is free. */
function portBindings(wanted: readonly string[]): Ports {
  return portMap(wanted.flatMap(parsePublish), ({ hostAddress, hostPort }) => ({
    HostIp: hostAddress === "0.0.0.0" ? "" : hostAddress,
    HostPort: hostPort === 0 ? "" : String(hostPort),
  }));
}

/** Where it is, and where it is reached. */
function networkSettings(endpoint: BridgeEndpoint | undefined, mode: string) {
  const place = { IPAddress: endpoint?.address ?? "", MacAddress: endpoint?.mac ?? "" };
  return {
    ...place,
    Ports: portMap(endpoint?.ports ?? [], ({ hostAddress, hostPort }) => ({
      HostIp: hostAddress,
      HostPort: String(hostPort),
    })),
    Networks: mode.startsWith("container:") || mode === "bundle" ? {} : { [mode]: place },
  };
}

function ofImage(store: ImageStore, name: string) {
  const { id, config } = store.resolve(name);
  const named = store.list().filter((image) => image.id === id);
  return {
    Id: id,
    RepoTags: named.flatMap((image) =>
      image.name === undefined ? [] : [familiarReference(parseReference(image.name))],
    ),
    Created: config.created ?? "",
    Architecture: config.architecture,
    Os: config.os,
    Size: named[0]?.sizeBytes ?? 0,
    Config: config.config,
    RootFS: { Type: "layers", Layers: config.diffIds },
  };
}
