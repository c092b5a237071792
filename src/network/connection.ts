import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { ContainerError } from "../error.ts";
import { close, lock, O, open, replaceFile, sealedFile } from "../kernel/file.ts";
import { bootId, openProcess, reap, spawn } from "../kernel/process.ts";
import { socketIn } from "../kernel/socket.ts";
import { call } from "../kernel/syscall.ts";
import { SOCKET_OPTIONS } from "../netlink/message.ts";
import type { EndpointArgs } from "../plan/step.ts";
import { parseAddress, parseInterfaceAddress, parseSubnet, type Subnet } from "./address.ts";
import {
  BRIDGE_NAME,
  type BridgeEndpoint,
  type BridgeState,
  chooseSubnet,
  formatState,
  isEmpty,
  newBridge,
  parseState,
  withEndpoint,
  withoutEndpoint,
} from "./bridge.ts";
import * as endpoint from "./endpoint.ts";
import * as firewall from "./firewall.ts";
import type { PortBinding } from "./ports.ts";

/** The bridge network of one data directory: its state file is the truth, its lock orders what changes it. */

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const CLOEXEC = 0o2000000;
const INTERFACE = "eth0";

/** Chooses a container's address and records it, so that a crash from here on can be found. @returns the plan's argument */
export function reserveEndpoint(data: string, container: string, ports: readonly PortBinding[]): EndpointArgs {
  return locked(data, (state) => {
    const { state: next, args } = choose(state, container, ports);
    return { state: next, result: args };
  });
}

/** What a container would get now; nothing is recorded, and somebody else may come first. */
export function foreseeEndpoint(data: string, container: string, ports: readonly PortBinding[]): EndpointArgs {
  return choose(readState(data), container, ports).args;
}

function choose(
  state: BridgeState | undefined,
  container: string,
  ports: readonly PortBinding[],
): { state: BridgeState; args: EndpointArgs } {
  const current = usable(state) ?? {
    ...newBridge(withSocket(freeSubnet), bootId()),
    // remembered before it is changed: whoever is killed in between leaves a host that can be put right
    sysctls: endpoint.sysctlsBefore(SYSCTLS),
  };
  const { state: next, endpoint: reserved } = withEndpoint(current, container, ports);
  const { address, mac, hostName } = reserved;
  const { subnet, gateway } = next;
  const args = { container, bridge: BRIDGE_NAME, subnet, gateway, address, mac, hostName, ports: reserved.ports };
  return { state: next, args };
}

function freeSubnet(socket: endpoint.NetlinkSocket): Subnet {
  endpoint.checkUnused(socket, BRIDGE_NAME);
  return chooseSubnet(endpoint.takenSubnets(socket, BRIDGE_NAME));
}

/** Host step: bridge and veth pair, and the container's end of it. */
export function makeEndpoint(args: EndpointArgs, pid: number, data: string): void {
  const { bridge, gateway, address, subnet, hostName } = args;
  const prefix = parseSubnet(subnet).prefixLength;
  locked(data, (state) => {
    if (state === undefined)
      throw new ContainerError({ message: `the state of network ${bridge} is gone`, code: "ENOENT" });
    const netns = open(`/proc/${pid}/ns/net`, O.RDONLY);
    try {
      withSocket((socket) => {
        if (endpoint.findLink(socket, bridge) === undefined) {
          endpoint.createBridge(socket, SYSCTLS, {
            name: bridge,
            gateway: parseInterfaceAddress(`${gateway}/${prefix}`),
          });
        }
        endpoint.createEndpoint(socket, {
          bridge,
          hostName,
          containerName: INTERFACE,
          netnsFd: netns,
          mac: Buffer.from(args.mac.replaceAll(":", ""), "hex"),
        });
      });
      withSocket(
        (socket) =>
          endpoint.configureInside(socket, {
            name: INTERFACE,
            address: parseInterfaceAddress(`${address}/${prefix}`),
            gateway: parseAddress(gateway),
          }),
        netns,
      );
    } finally {
      close(netns);
    }
    return {};
  });
}

/** Host step: our chains where they are missing, and the container's rules. */
export function publishPorts({ container, bridge, subnet, address, ports }: EndpointArgs, data: string): void {
  locked(data, (state, save) => {
    if (state === undefined)
      throw new ContainerError({ message: `the state of network ${bridge} is gone`, code: "ENOENT" });
    const chains = state.chains === true ? "" : firewall.addBridge({ bridge, subnet });
    // what a killed process left would stand twice
    if (state.chains === "begun") repair();
    if (chains !== "") save({ ...state, chains: "begun" });
    restore(chains + firewall.addEndpoint({ id: container, address, ports: [...bindings(ports)] }));
    return { state: { ...state, chains: true } };
  });
}

/** Takes a container's rules away before the rest of its endpoint, so that its ports can be had. */
export function withdrawPorts(container: string, data: string): void {
  locked(data, (state) => {
    const place = state && Object.hasOwn(state.endpoints, container) ? state.endpoints[container] : undefined;
    if (state === undefined || place === undefined || place.ports.length === 0) return {};
    removeRules(state, container, place, false);
    const chains = state.chains === true; // "begun" was repaired: nothing of ours is there
    return { state: { ...state, chains, endpoints: { ...state.endpoints, [container]: { ...place, ports: [] } } } };
  });
}

/** Undo of publishPorts and makeEndpoint; the last endpoint takes chains, bridge and changed sysctls with it. */
export function removeEndpoint({ container, bridge, hostName }: EndpointArgs, data: string): void {
  locked(data, (state) => {
    const place = state && Object.hasOwn(state.endpoints, container) ? state.endpoints[container] : undefined;
    if (state === undefined || place === undefined) return {};
    const left = withoutEndpoint(state, container);
    const last = isEmpty(left);
    removeRules(state, container, place, last);
    withSocket((socket) => {
      if (last) endpoint.removeBridge(socket, SYSCTLS, { name: bridge, hostNames: [hostName], changed: state.sysctls });
      else endpoint.removeEndpoint(socket, hostName);
    });
    return { state: last ? { ...left, chains: false, sysctls: {} } : left };
  });
}

/** The rules of a container, and with the last one our chains. */
function removeRules({ chains }: BridgeState, id: string, { address, ports }: BridgeEndpoint, last: boolean): void {
  if (chains === "begun") repair();
  if (chains !== true) return;
  try {
    restore(last ? firewall.removeBridge() : firewall.removeEndpoint({ id, address, ports: [...bindings(ports)] }));
  } catch {
    repair(last ? undefined : id); // somebody else has changed the rules: look what is there
  }
}

/** The containers that have an endpoint. */
export function reservedContainers(data: string): string[] {
  return Object.keys(readState(data)?.endpoints ?? {});
}

/** A container's place on the bridge. */
export function endpointOf(data: string, container: string): BridgeEndpoint | undefined {
  const { endpoints = {} } = readState(data) ?? {};
  return Object.hasOwn(endpoints, container) ? endpoints[container] : undefined;
}

/** Takes back a container's endpoint, whatever has become of it. */
export function releaseEndpoint(data: string, container: string): void {
  const state = readState(data);
  if (state === undefined || !Object.hasOwn(state.endpoints, container)) return;
  const { endpoints, subnet, gateway } = state;
  const reserved = endpoints[container];
  if (reserved !== undefined) removeEndpoint({ container, bridge: BRIDGE_NAME, subnet, gateway, ...reserved }, data);
}

function* bindings(ports: EndpointArgs["ports"]): Generator<PortBinding> {
  for (const { protocol, ...port } of ports)
    if (protocol === "tcp" || protocol === "udp" || protocol === "sctp") yield { protocol, ...port };
}

const SYSCTLS: endpoint.Sysctls = {
  read: (path) => (existsSync(`/proc/sys/${path}`) ? readFileSync(`/proc/sys/${path}`, "utf8") : undefined),
  write: (path, value) => writeFileSync(`/proc/sys/${path}`, value),
};

/** A network of another boot is gone, and one without endpoints can move to another subnet. */
function usable(state: BridgeState | undefined): BridgeState | undefined {
  return state === undefined || state.bootId !== bootId() || isEmpty(state) ? undefined : state;
}

function pathOf(data: string): string {
  return `${data}/networks/bridge.json`;
}

/** undefined before the first container */
function readState(data: string): BridgeState | undefined {
  const path = pathOf(data);
  const text = existsSync(path) ? readFileSync(path, "utf8") : "";
  // empty after a loss of power, which has ended the network as well
  return text === "" ? undefined : parseState(text);
}

function locked<T>(
  data: string,
  work: (state: BridgeState | undefined, save: (state: BridgeState) => void) => { state?: BridgeState; result?: T },
): T {
  const path = pathOf(data);
  const directory = dirname(path);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const save = (state: BridgeState) => replaceFile(path, formatState(state));
  const held = open(directory, O.RDONLY | O.DIRECTORY);
  try {
    lock(held, true);
    const { state, result } = work(readState(data), save);
    if (state !== undefined) save(state);
    return result as T; // work gives one whenever its caller uses it
  } finally {
    close(held);
  }
}

/** One conversation with rtnetlink, here or in a container's namespace. */
export function withSocket<T>(work: (socket: endpoint.NetlinkSocket) => T, netns?: number): T {
  const fd =
    netns === undefined ? call("socket", AF_NETLINK, SOCK_RAW | CLOEXEC, 0) : socketIn(netns, AF_NETLINK, SOCK_RAW, 0);
  const on = new Uint8Array([1, 0, 0, 0]);
  for (const option of [SOCKET_OPTIONS.cappedAcknowledgements, SOCKET_OPTIONS.extendedAcknowledgements])
    call("setsockopt", fd, SOCKET_OPTIONS.level, option, on, 4);
  try {
    return work({ exchange: (request) => exchange(fd, request), close: () => undefined });
  } finally {
    close(fd);
  }
}

/** Sends a request, and receives until its acknowledgement, error or NLMSG_DONE. */
function exchange(fd: number, request: Uint8Array): Uint8Array {
  call("sendto", fd, request, request.length, 0, null, 0);
  const parts: Uint8Array[] = [];
  for (;;) {
    const buffer = Buffer.alloc(1 << 16);
    const part = buffer.subarray(0, call("recvfrom", fd, buffer, buffer.length, 0, null, null));
    parts.push(part);
    if (endsReply(part)) return Buffer.concat(parts);
  }
}

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;

function endsReply(part: Buffer): boolean {
  for (let at = 0; at + 16 <= part.length; ) {
    const length = part.readUInt32LE(at);
    const type = part.readUInt16LE(at + 4);
    if (type === NLMSG_ERROR || type === NLMSG_DONE || length < 16) return true;
    at += (length + 3) & ~3;
  }
  return false;
}

/** Removes what is there of our rules, by looking: of one container, or all. */
function repair(container?: string): void {
  const saved = run(firewall.SAVE_COMMAND, "");
  restore(firewall.repair(saved, container));
}

function restore(text: string): void {
  if (text !== "") run(firewall.RESTORE_COMMAND, text);
}

/** Runs a program of iptables with a text on its standard input. @returns what it printed @throws ContainerError */
function run([program, ...args]: readonly [string, ...string[]], input: string): string {
  const path = ["/usr/sbin", "/sbin", "/usr/bin"]
    .map((directory) => `${directory}/${program}`)
    .find((file) => existsSync(file));
  if (path === undefined)
    throw new ContainerError({
      message: `cannot find ${program}`,
      code: "ENOENT",
      hint: "bridge networks need iptables: install it, or use --network host or none",
    });
  const text = sealedFile("caisson-rules", Buffer.from(input));
  const stdin = open(`/proc/self/fd/${text}`, O.RDONLY);
  const output = call("memfd_create", "caisson-output", 1);
  const errors = call("memfd_create", "caisson-errors", 1);
  try {
    const pidfd = openProcess(
      spawn(path, [program, ...args], ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], [stdin, output, errors]),
    );
    const status = reap(pidfd)?.status;
    close(pidfd);
    if (status !== 0)
      throw new ContainerError({
        message: `${program} failed: ${readFileSync(`/proc/self/fd/${errors}`, "utf8").trim()}`,
        code: "EIO",
      });
    return readFileSync(`/proc/self/fd/${output}`, "utf8");
  } finally {
    for (const fd of [text, stdin, output, errors]) close(fd);
  }
}
