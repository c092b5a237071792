/** The three files about names that a container gets: what is in them. Pure. */

/** Used by Docker too when the host has no name server that a container can reach. */
const PUBLIC_NAME_SERVERS = ["8.8.8.8", "8.8.4.4"];

/** The host's loopback (systemd-resolved, dnsmasq) is the container's own seen from inside, and it has no IPv6. */
const UNREACHABLE = /^127\.|:/;

export interface NameResolution {
  nameServers?: readonly string[];
  search?: readonly string[];
  options?: readonly string[];
}

/**
 * The container's /etc/resolv.conf (resolv.conf(5)), from the host's.
 *
 * @param hostFiles contents of the host's /etc/resolv.conf, then of others to take name servers from when that has none
 *   that a container can reach: systemd-resolved keeps the real ones in /run/systemd/resolve/resolv.conf
 * @param wanted what the user asked for instead
 */
export function resolvConf(hostFiles: readonly string[], wanted: NameResolution = {}): string {
  const hosts = hostFiles.map(parseResolvConf);
  const reachable = hosts.map(({ nameServers }) => nameServers.filter((server) => !UNREACHABLE.test(server)));
  const nameServers = wanted.nameServers ?? reachable.find((servers) => servers.length > 0) ?? PUBLIC_NAME_SERVERS;
  const search = wanted.search ?? hosts[0]?.search ?? [];
  const options = wanted.options ?? hosts[0]?.options ?? [];
  return [
    ...nameServers.map((server) => `nameserver ${server}\n`),
    search.length > 0 ? `search ${search.join(" ")}\n` : "",
    options.length > 0 ? `options ${options.join(" ")}\n` : "",
  ].join("");
}

/** Of several search lines the last counts, `domain` being the old word for one with a single name; options add up. */
function parseResolvConf(text: string): Required<NameResolution> {
  const nameServers: string[] = [];
  const options: string[] = [];
  let search: string[] = [];
  for (const line of text.split("\n")) {
    const [keyword, ...values] = line
      .replace(/[#;].*$/, "")
      .trim()
      .split(/\s+/);
    if (keyword === "nameserver") nameServers.push(...values.slice(0, 1));
    else if (keyword === "search") search = values;
    else if (keyword === "domain") search = values.slice(0, 1);
    else if (keyword === "options") options.push(...values);
  }
  return { nameServers, search, options };
}

/** The container's /etc/hosts. Without an address (network none) its name is not in it. */
export function hostsFile(
  hostname: string,
  address?: string,
  extra: readonly { address: string; name: string }[] = [],
): string {
  const short = hostname.split(".", 1)[0];
  const names = short === hostname ? hostname : `${hostname} ${short}`;
  return [
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
    ...extra.map(({ address, name }) => `${address}\t${name}`),
    ...(address === undefined ? [] : [`${address}\t${names}`]),
    "",
  ].join("\n");
}

/** The container's /etc/hostname. */
export function hostnameFile(hostname: string): string {
  return `${hostname}\n`;
}
