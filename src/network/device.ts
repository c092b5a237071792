import { readlinkSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { close, O, open } from "../kernel/file.ts";
import * as netlinkAddress from "../netlink/address.ts";
import * as link from "../netlink/link.ts";
import { withSocket } from "./connection.ts";
import { ask, findLink } from "./endpoint.ts";

/**
 * Moves a network device of ours into another network namespace, with its permanent addresses of global scope, and
 * brings it up: OCI config-linux.md, "Network Devices".
 *
 * @param netns descriptor of the other namespace
 * @param name what it is called there; "eth%d" lets the kernel find the number
 * @returns what brings it back under its old name, as long as the namespace and its descriptor are there
 * @throws ContainerError ENODEV when there is no such device, EEXIST when the name is taken
 */
export function moveDevice(device: string, name: string, netns: number): () => void {
  if (readlinkSync(`/proc/self/fd/${netns}`) === readlinkSync("/proc/self/ns/net"))
    throw new ContainerError({
      message: `cannot move network device ${device} to where it is`,
      code: "EINVAL",
      path: device,
      hint: "devices can be moved only into a network namespace that is not the host's",
    });
  const { inside, up } = transfer({ device, name, to: netns });
  return () => {
    const own = open("/proc/self/ns/net", O.RDONLY);
    try {
      transfer({ device: inside, name: device, from: netns, to: own, up });
    } finally {
      close(own);
    }
  };
}

interface Transfer {
  device: string;
  name: string;
  /** Descriptor of the namespace it is in; without one, ours. */
  from?: number;
  to: number;
  /** Whether it is up afterwards. */
  up?: boolean;
}

/** @returns what it is called now, and whether it was up */
function transfer({ device, name, from, to, up = true }: Transfer): { inside: string; up: boolean } {
  const before = withSocket((socket) => ask(socket, "list links", link.dumpLinks()), to);
  const there = link.decodeLinks(before.messages);
  if (there.some((other) => other.name === name))
    throw new ContainerError({
      message: `cannot move network device ${device}: there is a ${name} already`,
      code: "EEXIST",
      path: device,
    });
  const { found, addresses } = withSocket((socket) => {
    const source = findLink(socket, device);
    if (source === undefined)
      throw new ContainerError({
        message: `cannot find network device ${device}`,
        code: "ENODEV",
        path: device,
        hint: "linux.netDevices names devices of the runtime's own network namespace: see ip link",
      });
    // read now: they are gone as soon as the device has left
    const dump = ask(socket, "list addresses", netlinkAddress.dumpAddresses());
    const own = netlinkAddress.decodePermanentAddresses(dump.messages).filter(({ index }) => index === source.index);
    ask(socket, `move network device ${device}`, link.moveLink(source.index, name, to));
    return { found: source, addresses: own };
  }, from);
  return withSocket((socket) => {
    const now = link.decodeLinks(ask(socket, "list links", link.dumpLinks()).messages);
    const moved = now.find((other) => !there.some(({ index }) => index === other.index));
    if (moved === undefined)
      throw new ContainerError({ message: `network device ${device} is lost`, code: "ENODEV", path: device });
    const { index } = moved;
    for (const address of addresses)
      ask(socket, `give ${moved.name} its address`, netlinkAddress.addAddress({ ...address, index }));
    if (up) ask(socket, `bring up ${moved.name}`, link.setUp({ index }, true));
    return { inside: moved.name, up: found.up };
  }, to);
}
