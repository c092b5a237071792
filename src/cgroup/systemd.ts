import { statSync } from "node:fs";
import { isVariant, type Value } from "../dbus/value.ts";
import { ContainerError } from "../error.ts";
import type { Systemd, UnitProperty } from "../plan/cgroup-unit.ts";
import { type Address, Bus } from "./bus.ts";

const { env } = process;

// org.freedesktop.systemd1(5)

const TIMEOUT_MS = 30_000;
const MANAGER = {
  destination: "org.freedesktop.systemd1",
  path: "/org/freedesktop/systemd1",
  interface: "org.freedesktop.systemd1.Manager",
};
/** The code of startUnit's refusal where a unit of that name lives. */
export const UNIT_EXISTS = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit";

/**
 * What systemd runs here, the machine's or the user's own.
 * @throws ContainerError in runc's words where there is none
 */
export function lookAtSystemd(user: boolean): Systemd {
  if (statSync("/run/systemd/system", { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new ContainerError({
      message: "systemd not running on this host, cannot use systemd cgroups manager",
      code: "ENOTSUP",
    });
  return converse(user, (bus) => {
    const read = (property: string): string => {
      const [value] = bus.call({
        ...MANAGER,
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
        signature: "ss",
        body: [MANAGER.interface, property],
      });
      const text = isVariant(value) ? value.value : undefined;
      if (typeof text !== "string")
        throw new ContainerError({ message: `systemd's ${property} is no string`, code: "EPROTO" });
      return text;
    };
    // such as "252.39-1~deb12u1"
    const version = Number(/\d+/.exec(read("Version"))?.[0] ?? 0);
    return { version, controlGroup: read("ControlGroup"), user };
  });
}

/**
 * Has systemd make a unit with a process in it, and waits until it has. What is left of a failed unit of the same name
 * is cleared away first.
 * @throws ContainerError UNIT_EXISTS where one of that name lives, which is somebody else's
 */
export function startUnit(unit: string, properties: readonly UnitProperty[], pid: number, user: boolean): void {
  const processes: UnitProperty[] = unit.endsWith(".slice")
    ? []
    : [{ name: "PIDs", value: { signature: "au", value: [pid] } }];
  const body = [unit, "replace", listed([...properties, ...processes]), []];
  converse(user, (bus) => {
    const start = () => awaitJob(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", body);
    let result: string;
    try {
      try {
        result = start();
      } catch (error) {
        if (codeOf(error) !== UNIT_EXISTS) throw error;
        resetFailed(bus, unit);
        result = start();
      }
    } catch (error) {
      if (codeOf(error) === "ETIMEDOUT") resetFailed(bus, unit);
      throw described(error, `unable to start unit ${JSON.stringify(unit)}`);
    }
    if (result === "done") return;
    resetFailed(bus, unit);
    throw new ContainerError({ message: `error creating systemd unit \`${unit}\`: got \`${result}\``, code: "EIO" });
  });
}

/** Stops a unit and forgets that it may have failed; can be repeated. @throws ContainerError */
export function stopUnit(unit: string, user: boolean): void {
  converse(user, (bus) => {
    try {
      awaitJob(bus, "StopUnit", "ss", [unit, "replace"]);
    } catch (error) {
      // a scope goes by itself with its last process
      if (codeOf(error) !== NO_SUCH_UNIT) throw described(error, `unable to stop unit ${JSON.stringify(unit)}`);
    }
    resetFailed(bus, unit);
  });
}

/** Changes properties of a unit until the machine is started anew. @throws ContainerError */
export function setUnitProperties(unit: string, properties: readonly UnitProperty[], user: boolean): void {
  if (properties.length === 0) return;
  converse(user, (bus) => {
    try {
      bus.call({
        ...MANAGER,
        member: "SetUnitProperties",
        signature: "sba(sv)",
        body: [unit, true, listed(properties)],
      });
    } catch (error) {
      throw described(error, `error setting systemd properties of ${JSON.stringify(unit)}`);
    }
  });
}

function converse<T>(user: boolean, work: (bus: Bus) => T): T {
  const bus = Bus.open(user ? userAddresses() : systemAddresses(), TIMEOUT_MS);
  try {
    bus.watch(`type='signal',interface='${MANAGER.interface}',member='JobRemoved',path='${MANAGER.path}'`);
    bus.call({ ...MANAGER, member: "Subscribe" });
    return work(bus);
  } finally {
    bus.close();
  }
}

/** systemd's own socket is root's, and is there before any bus. */
function systemAddresses(): Address[] {
  return [
    { path: "/run/systemd/private", shared: false },
    ...busAddresses(env.DBUS_SYSTEM_BUS_ADDRESS ?? "unix:path=/run/dbus/system_bus_socket"),
  ];
}

function userAddresses(): Address[] {
  const runtime = env.XDG_RUNTIME_DIR ?? "";
  const addresses = [
    ...(runtime === "" ? [] : [{ path: `${runtime}/systemd/private`, shared: false }]),
    ...busAddresses(env.DBUS_SESSION_BUS_ADDRESS ?? ""),
    ...(runtime === "" ? [] : [{ path: `${runtime}/bus`, shared: true }]),
  ];
  if (addresses.length === 0)
    throw new ContainerError({
      message: "could not find the user's systemd: neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS is set",
      code: "ENOENT",
      hint: "log in by a session that has them, or run `loginctl enable-linger` for the user",
    });
  return addresses;
}

/** D-Bus Specification, "Server Addresses": those that are sockets with a path. */
function busAddresses(addresses: string): Address[] {
  return addresses.split(";").flatMap((address) => {
    const [, path] = /^unix:(?:.*,)?path=([^,]+)/.exec(address) ?? [];
    return path === undefined ? [] : [{ path: decodeURIComponent(path), shared: true }];
  });
}

/** Calls a method that makes a job, and waits for its end. @returns systemd's word for it, "done" if all went well */
function awaitJob(bus: Bus, member: string, signature: string, body: readonly Value[]): string {
  const [job] = bus.call({ ...MANAGER, member, signature, body });
  const { body: removed } = bus.await(
    `the end of systemd's job ${String(job)}`,
    (signal) => signal.member === "JobRemoved" && signal.interface === MANAGER.interface && signal.body[1] === job,
  );
  return String(removed[3]);
}

/** A unit that has not failed, or is gone, is what is wanted. */
function resetFailed(bus: Bus, unit: string): void {
  try {
    bus.call({ ...MANAGER, member: "ResetFailedUnit", signature: "s", body: [unit] });
  } catch (error) {
    if (!(error instanceof ContainerError)) throw error;
  }
}

function listed(properties: readonly UnitProperty[]): Value[] {
  return properties.map(({ name, value }) => [name, value]);
}

function described(error: unknown, what: string): unknown {
  if (!(error instanceof ContainerError)) return error;
  return new ContainerError({ ...error, message: `${what}: ${error.message}`, cause: error });
}

function codeOf(error: unknown): string | undefined {
  return error instanceof ContainerError ? error.code : undefined;
}
