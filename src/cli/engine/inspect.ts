import type { BridgeEndpoint } from "../../network/bridge.ts";
import { printJson } from "../print.ts";
import type { Define } from "./engine.ts";

export const defineInspect: Define = (program, { engine }) => {
  program
    .command("inspect")
    .description("print all that is known of containers, as JSON")
    .argument("<container...>")
    .action((names: string[]) => {
      printJson(
        names.map((name) => {
          const container = engine().containers.find(name);
          const status = engine().status(container);
          const running = status === "running" || status === "paused";
          const exit = engine().exit(container);
          return {
            Id: container.id,
            Name: `/${container.name}`,
            Created: container.created,
            Image: container.imageId,
            State: {
              Status: status,
              Running: running,
              Paused: status === "paused",
              Pid: running ? engine().running(container).record.pid : 0,
              OOMKilled: exit?.oomKilled ?? false,
              ExitCode: exit?.status ?? 0,
              FinishedAt: exit?.finishedAt ?? "0001-01-01T00:00:00Z",
            },
            Config: { ...container.config, Image: container.image },
            HostConfig: container.hostConfig,
            GraphDriver:
              container.root.kind === "image"
                ? { Name: container.root.driver, Data: { LowerDir: container.root.layers.join(":") } }
                : null,
            Mounts: container.mounts,
            NetworkSettings: networkSettings(engine().endpoint(container)),
          };
        }),
        4,
      );
    });
};

/** Docker's form: "80/tcp" → where it is reached. */
function networkSettings(endpoint: BridgeEndpoint | undefined) {
  const Ports: { [port: string]: { HostIp: string; HostPort: string }[] } = {};
  for (const { containerPort, protocol, hostAddress, hostPort } of endpoint?.ports ?? [])
    Ports[`${containerPort}/${protocol}`] = [
      ...(Ports[`${containerPort}/${protocol}`] ?? []),
      { HostIp: hostAddress, HostPort: String(hostPort) },
    ];
  return { IPAddress: endpoint?.address ?? "", MacAddress: endpoint?.mac ?? "", Ports };
}
