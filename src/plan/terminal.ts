import type { Process } from "../spec/spec.ts";
import type { Definition } from "./definition.ts";
import type { Step } from "./step.ts";

const FROM = "/spec/process/terminal";

/** Where the master will go is opened before init starts. */
export function openConsole(process: Process, console: Definition["console"]): Step[] {
  if (process.terminal !== true) return [];
  if (console === undefined || console === "creator")
    return [{ name: "openTurns", args: { slot: "console" }, from: FROM }];
  return [{ name: "openConsoleSocket", args: { path: console.socket, slot: "console" }, from: FROM }];
}

/** A terminal of the container's own devpts; its master goes to whoever asked for it. */
export function attachTerminal(process: Process, withConsole: boolean): Step[] {
  if (process.terminal !== true) return [];
  const { height = 0, width = 0 } = process.consoleSize ?? {};
  const console: Step[] = withConsole
    ? [{ name: "attachConsole", args: { root: "root", terminal: "terminal" }, from: FROM }]
    : [];
  return [
    {
      name: "openTerminal",
      args: { root: "root", rows: height, columns: width, master: "master", terminal: "terminal" },
      from: FROM,
    },
    { name: "sendTerminal", args: { socket: "console", master: "master" }, from: FROM },
    ...console,
    { name: "useTerminal", args: { terminal: "terminal", uid: process.user?.uid ?? 0 }, from: FROM },
  ];
}
