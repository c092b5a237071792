import { expect, test } from "vitest";
import { ContainerError, withLeft } from "../../src/error.ts";
import { execute, undo } from "../../src/execute/execute.ts";
import type { HostContext } from "../../src/execute/host.ts";
import type { Plan } from "../../src/plan/step.ts";

// Devices that are brought back stand for every effect on the host: each has its own way, and may fail.

function device(name: string): Plan[number] {
  return { name: "moveDevice", args: { device: name, name }, from: `/spec/linux/netDevices/${name}` };
}

function contextOf(returns: { [device: string]: () => void }): HostContext {
  return {
    id: "id",
    directory: -1,
    process: undefined,
    slots: new Map(),
    state: () => "{}",
    record: () => undefined,
    returns: new Map(Object.entries(returns)),
  };
}

test("all is taken back in reverse, also after what failed, and every failure is told", () => {
  const done: string[] = [];
  const fails = (name: string) => () => {
    done.push(name);
    throw new ContainerError({ message: `cannot bring back ${name}`, code: "EBUSY" });
  };
  const context = contextOf({ a: () => done.push("a"), b: fails("b"), c: () => done.push("c"), d: fails("d") });
  const failures = undo(["a", "b", "c", "d"].map(device), context);
  expect(done).toEqual(["d", "c", "b", "a"]);
  expect(failures.map(String)).toEqual(["ContainerError: cannot bring back d", "ContainerError: cannot bring back b"]);
});

test("a step that fails for a reason without a code is taken back as well", () => {
  const done: string[] = [];
  const context: HostContext = {
    ...contextOf({ a: () => done.push("a"), b: () => done.push("b") }),
    process: { pid: process.pid, pidfd: -1 },
    moveDevice: (device) => {
      if (device === "b") throw new ContainerError({ message: "half of it is done" });
      return () => done.push(device);
    },
  };
  expect(() => execute(["a", "b"].map(device), { trace: -1, context, preserved: [] })).toThrow("half of it is done");
  expect(done).toEqual(["b", "a"]);
});

test("the first error stays the first, with all it knows, and what is left beside it", () => {
  const first = new ContainerError({ message: "the hook failed", code: "EPERM", errno: 1, step: "runHostHook" });
  expect(withLeft(first, [])).toBe(first);
  const both = withLeft(withLeft(first, [new Error("one")]), [new Error("two")]);
  expect(both).toMatchObject({ message: "the hook failed", code: "EPERM", errno: 1, step: "runHostHook" });
  expect(both).toMatchObject({ left: ["one", "two"] });
  expect(withLeft(new TypeError("a fault of ours"), ["three"])).toMatchObject({
    message: "a fault of ours",
    left: ["three"],
    cause: expect.any(TypeError),
  });
});
