import { ContainerError } from "../error.ts";
import type { Resources } from "../spec/spec.ts";

export const ACCESS = { m: 1, r: 2, w: 4 } as const;
const EVERY_ACCESS = 7;

/** A rule in full: no defaults left to fill in. */
export type FullDeviceRule = {
  allow: boolean;
  type: "a" | "b" | "c";
  /** undefined means every number. */
  major: number | undefined;
  minor: number | undefined;
  /** A sum of ACCESS. */
  access: number;
  /** JSON pointer of the rule. */
  from: string;
};

/** What cgroup v1 can hold: a default, and the devices that are treated otherwise. */
export type DeviceList = { allow: boolean; exceptions: FullDeviceRule[] };

/** What every container may use, whatever the specification says: the same list as runc's. [type, major, minor, access] */
const DEFAULT_DEVICES = [
  ["c", undefined, undefined, ACCESS.m], // making nodes is CAP_MKNOD's business; opening them is not allowed by this
  ["b", undefined, undefined, ACCESS.m],
  ["c", 1, 3, EVERY_ACCESS], // null
  ["c", 1, 5, EVERY_ACCESS], // zero
  ["c", 1, 7, EVERY_ACCESS], // full
  ["c", 1, 8, EVERY_ACCESS], // random
  ["c", 1, 9, EVERY_ACCESS], // urandom
  ["c", 5, 0, EVERY_ACCESS], // tty
  ["c", 5, 2, EVERY_ACCESS], // ptmx
  ["c", 10, 200, EVERY_ACCESS], // net/tun: useless without CAP_NET_ADMIN, and VPNs in containers rely on it
  ["c", 136, undefined, EVERY_ACCESS], // pts
] as const;

/**
 * The rules of `linux.resources.devices` in full, in order, followed by the devices every container may use.
 * Everything is denied before the first of them.
 * @throws ContainerError ERR_SPEC for an unknown type, number or access
 */
export function deviceRules(rules: Resources["devices"] = []): FullDeviceRule[] {
  const asked = rules.flatMap((rule, index): FullDeviceRule[] => {
    const from = `/linux/resources/devices/${index}`;
    const type = rule.type || "a";
    const letters = rule.access || "rwm";
    const major = numberOrEvery(rule.major, from);
    const minor = numberOrEvery(rule.minor, from);
    if ((type !== "a" && type !== "b" && type !== "c") || !/^[rwm]+$/.test(letters)) {
      throw new ContainerError({ message: `cannot understand device rule ${index}`, code: "ERR_SPEC", from });
    }
    const access = accessBits(letters);
    const full = { allow: rule.allow, major, minor, access, from };
    // For "a" the kernel of v1 ignores numbers and access; only the rule without any means the same everywhere.
    if (type !== "a" || (major === undefined && minor === undefined && access === EVERY_ACCESS))
      return [{ ...full, type }];
    return [
      { ...full, type: "c" },
      { ...full, type: "b" },
    ];
  });
  const defaults = DEFAULT_DEVICES.map(
    ([type, major, minor, access]): FullDeviceRule => ({
      allow: true,
      type,
      major,
      minor,
      access,
      from: "/linux/resources/devices",
    }),
  );
  return [...asked, ...defaults];
}

/**
 * Brings rules, of which the last that matches decides, into the form cgroup v1 has (Documentation/admin-guide/
 * cgroup-v1/devices.rst). A rule that takes a part out of a wider, earlier one has no such form; the kernel would
 * silently ignore it, so it is refused.
 * @throws ContainerError ERR_SPEC
 */
export function deviceList(rules: readonly FullDeviceRule[]): DeviceList {
  let list: DeviceList = { allow: false, exceptions: [] };
  for (const rule of rules) {
    if (rule.type === "a") {
      list = { allow: rule.allow, exceptions: [] };
    } else if (rule.allow !== list.allow) {
      const same = list.exceptions.find((other) => covers(rule, other) && covers(other, rule));
      if (same === undefined) list.exceptions.push({ ...rule });
      else same.access |= rule.access;
    } else {
      for (const other of list.exceptions) {
        if (covers(rule, other)) other.access &= ~rule.access;
        else if (overlaps(rule, other) && (rule.access & other.access) !== 0) {
          throw new ContainerError({
            message: `cannot ${rule.allow ? "allow" : "deny"} devices ${deviceText(rule)} out of ${deviceText(other)}: cgroup v1 has no exceptions of exceptions`,
            code: "ERR_SPEC",
            from: rule.from,
          });
        }
      }
      list.exceptions = list.exceptions.filter(({ access }) => access !== 0);
    }
  }
  return list;
}

/** As devices.allow and devices.deny read it: "c 1:3 rwm", "b *:* m", and "a" for every device. */
export function deviceText({ type, major, minor, access }: FullDeviceRule): string {
  if (type === "a") return "a";
  return `${type} ${major ?? "*"}:${minor ?? "*"} ${accessLetters(access)}`;
}

/** A sum of ACCESS in letters. */
export function accessLetters(access: number): string {
  return (["r", "w", "m"] as const).filter((letter) => (access & ACCESS[letter]) !== 0).join("");
}

function accessBits(letters: string): number {
  return (["r", "w", "m"] as const).reduce((sum, letter) => sum | (letters.includes(letter) ? ACCESS[letter] : 0), 0);
}

function numberOrEvery(number: number | undefined, from: string): number | undefined {
  if (number === undefined || number === -1) return undefined;
  if (Number.isInteger(number) && number >= 0 && number < 2 ** 32) return number;
  throw new ContainerError({ message: `cannot use ${number} as a device number`, code: "ERR_SPEC", from });
}

function covers(wide: FullDeviceRule, narrow: FullDeviceRule): boolean {
  return (
    wide.type === narrow.type &&
    (wide.major === undefined || wide.major === narrow.major) &&
    (wide.minor === undefined || wide.minor === narrow.minor)
  );
}

function overlaps(one: FullDeviceRule, other: FullDeviceRule): boolean {
  const meet = (a: number | undefined, b: number | undefined) => a === undefined || b === undefined || a === b;
  return one.type === other.type && meet(one.major, other.major) && meet(one.minor, other.minor);
}
