import { ContainerError } from "../error.ts";
import type { PortBinding } from "./ports.ts";

/**
 * What the bridge network needs of iptables, as the input of one `iptables-restore --noflush`, which applies all of it
 * to a table or nothing. Pure text. Rules live in chains of our own; the only foreign ones touched get one jump each.
 */

/** How the texts of this module are meant to be run. Waiting for the lock of another program has an end. */
export const RESTORE_COMMAND = ["iptables-restore", "--noflush", "--wait=10"] as const;
export const SAVE_COMMAND = ["iptables-save"] as const;

export interface BridgeRules {
  bridge: string;
  /** such as "172.30.0.0/16" */
  subnet: string;
}

export interface EndpointRules {
  id: string;
  /** of the container */
  address: string;
  /** with the ports that were really bound: no 0 */
  ports: readonly PortBinding[];
}

const TABLES = ["nat", "filter"] as const;
type Table = (typeof TABLES)[number];

interface Chain {
  table: Table;
  name: string;
  /** Built-in chains that lead here, and for which packets. */
  from: readonly (readonly [chain: string, match: string])[];
}

const LOCAL = "-m addrtype --dst-type LOCAL ";

const CHAINS: readonly Chain[] = [
  // Packets for an address of the host, from outside or a container (PREROUTING) or the host itself (OUTPUT).
  {
    table: "nat",
    name: "CAISSON",
    from: [
      ["PREROUTING", LOCAL],
      ["OUTPUT", LOCAL],
    ],
  },
  { table: "nat", name: "CAISSON-POSTROUTING", from: [["POSTROUTING", ""]] },
  { table: "filter", name: "CAISSON-INPUT", from: [["INPUT", ""]] },
  { table: "filter", name: "CAISSON-FORWARD", from: [["FORWARD", ""]] },
];

interface Rule {
  table: Table;
  chain: string;
  match: string;
}

function rulesOfBridge({ bridge, subnet }: BridgeRules): Rule[] {
  const nat = (match: string): Rule => ({ table: "nat", chain: "CAISSON-POSTROUTING", match });
  const forward = (match: string): Rule => ({ table: "filter", chain: "CAISSON-FORWARD", match });
  return [
    // Out to the world: with the host's address, as nobody else knows a way back to the subnet.
    nat(`-s ${subnet} ! -o ${bridge} -j MASQUERADE`),
    // A container that came in by a published port, its own even: the answer must pass by the host again to be
    // translated back, not go straight over the bridge.
    nat(`-s ${subnet} -o ${bridge} -m conntrack --ctstate DNAT -j MASQUERADE`),
    // The host by 127.0.0.1: an address that means the container itself once there.
    nat(`-s 127.0.0.0/8 -o ${bridge} -j MASQUERADE`),
    // route_localnet, which the rule above needs, opens the host's loopback to whoever is on the bridge (CVE-2020-8558):
    // only answers may pass.
    {
      table: "filter",
      chain: "CAISSON-INPUT",
      match: `-d 127.0.0.0/8 -i ${bridge} -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP`,
    },
    forward(`-i ${bridge} -j ACCEPT`),
    forward(`-o ${bridge} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT`),
    // A neighbour of the host could route to the subnet itself and reach ports that are not published.
    forward(`-o ${bridge} -j DROP`),
  ];
}

function rulesOfEndpoint({ id, address, ports }: EndpointRules): Rule[] {
  const comment = `-m comment --comment ${quotedComment(id)}`;
  return ports.map(({ protocol, hostAddress, hostPort, containerPort }) => {
    const destination = hostAddress === "0.0.0.0" ? "" : `-d ${hostAddress}/32 `;
    const match = `${destination}-p ${protocol} -m ${protocol} --dport ${hostPort} ${comment} -j DNAT --to-destination ${address}:${containerPort}`;
    return { table: "nat", chain: "CAISSON", match };
  });
}

/** An id becomes part of a line that root's iptables reads, so nothing that could end a word or a line may be in it. */
function quotedComment(id: string): string {
  if (!/^[\w+.-]{1,240}$/.test(id)) {
    throw new ContainerError({ message: `cannot mark firewall rules with ${JSON.stringify(id)}`, code: "ERR_ID" });
  }
  return `"caisson:${id}"`;
}

/** Each table is one transaction. No lines, no text. */
function restoreText(lines: readonly (readonly [Table, string])[]): string {
  return TABLES.map((table) => {
    const its = lines.filter(([of]) => of === table).map(([, line]) => `${line}\n`);
    return its.length === 0 ? "" : `*${table}\n${its.join("")}COMMIT\n`;
  }).join("");
}

/**
 * Makes the chains and the bridge's rules, before the first endpoint. Chains that are there already are emptied
 * (iptables-restore does so for a chain that it is told to make), but the jumps would double: `removeEverything` first
 * where leftovers are possible. Jumps come first in their chain, since others (dockerd) drop what they do not know.
 */
export function addBridge(rules: BridgeRules): string {
  return restoreText([
    ...CHAINS.map(({ table, name }) => [table, `:${name} - [0:0]`] as const),
    ...jumps().map(([table, chain, match]) => [table, `-I ${chain} ${match}`] as const),
    ...rulesOfBridge(rules).map(({ table, chain, match }) => [table, `-A ${chain} ${match}`] as const),
  ]);
}

/** The reverse of `addBridge`, after the last endpoint. */
export function removeBridge(): string {
  return restoreText([
    ...jumps().map(([table, chain, match]) => [table, `-D ${chain} ${match}`] as const),
    ...CHAINS.flatMap(({ table, name }) => [[table, `-F ${name}`] as const, [table, `-X ${name}`] as const]),
  ]);
}

function jumps(): (readonly [Table, string, string])[] {
  return CHAINS.flatMap(({ table, name, from }) => {
    return from.map(([chain, match]) => [table, chain, `${match}-j ${name}`] as const);
  });
}

/** Publishes an endpoint's ports; empty when it has none, and then there is nothing to run. */
export function addEndpoint(endpoint: EndpointRules): string {
  return restoreText(rulesOfEndpoint(endpoint).map(({ table, chain, match }) => [table, `-A ${chain} ${match}`]));
}

/** The reverse of `addEndpoint`; iptables-restore refuses all of it when one rule is missing. */
export function removeEndpoint(endpoint: EndpointRules): string {
  return restoreText(rulesOfEndpoint(endpoint).map(({ table, chain, match }) => [table, `-D ${chain} ${match}`]));
}

/**
 * What takes away those rules of ours that are there, whoever left them: all of one endpoint, or everything.
 *
 * @param saved what iptables-save printed
 * @param id an endpoint's; without it chains and jumps go too
 * @returns input for iptables-restore; empty when there is nothing of ours
 */
export function repair(saved: string, id?: string): string {
  const mark = id === undefined ? undefined : `--comment ${quotedComment(id)} `;
  const rules: [Table, string][] = [];
  const chains: [Table, string][] = [];
  let table: Table | undefined;
  for (const line of saved.split("\n")) {
    if (line.startsWith("*")) table = CHAINS.find((chain) => line === `*${chain.table}`)?.table;
    if (table === undefined) continue;
    const [, made] = /^:(\S+) - /.exec(line) ?? [];
    const [, within, target] = /^-A (\S+) (?:.* )?-[jg] (\S+)/.exec(line) ?? [];
    const ours = (name: string | undefined) => CHAINS.some((chain) => chain.table === table && chain.name === name);
    if (mark !== undefined) {
      // iptables-save quotes only what needs it, so the mark is looked for in both forms.
      const marked = `${line} `.includes(mark) || `${line} `.includes(mark.replaceAll('"', ""));
      if (ours(within) && marked) rules.push([table, line.replace(/^-A/, "-D")]);
    } else if (ours(made)) chains.push([table, `-F ${made}`], [table, `-X ${made}`]);
    else if (ours(target) && !ours(within)) rules.push([table, line.replace(/^-A/, "-D")]);
  }
  return restoreText([...rules, ...chains]);
}
