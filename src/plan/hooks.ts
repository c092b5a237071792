import type { HookName, Spec } from "../spec/spec.ts";
import type { Step } from "./step.ts";

/** Hooks of the runtime's namespaces, one step each, in their order: OCI config.md, "POSIX-platform Hooks". */
export function hostHooks({ hooks }: Spec, ...kinds: HookName[]): Step[] {
  return kinds.flatMap((kind) =>
    (hooks?.[kind] ?? []).map(
      ({ path, args = [path], env = [], timeout = 0 }, at): Step => ({
        name: "runHostHook",
        args: { kind, path, args, env, timeoutMs: timeout * 1000 },
        from: `/spec/hooks/${kind}/${at}`,
      }),
    ),
  );
}

/** Hooks of the container's namespaces; their standard input is filled by the host once the pid is known. */
export function initHooks({ hooks }: Spec, kind: HookName): Step[] {
  const wanted = hooks?.[kind] ?? [];
  const from = `/spec/hooks/${kind}`;
  if (wanted.length === 0) return [];
  const state = `state/${kind}`;
  return [
    ...wanted.map(
      ({ path, args = [path], env = [], timeout = 0 }, at): Step => ({
        name: "runHook",
        args: { hook: [path, ...args], environment: env, state, timeoutMs: timeout * 1000 },
        from: `${from}/${at}`,
      }),
    ),
    { name: "closeSlot", args: { file: state }, from },
  ];
}

/** The state that init's hooks read, opened at the turn before them. */
export function openHookStates({ hooks }: Spec): Step[] {
  return (["createContainer", "startContainer"] as const).flatMap((kind): Step[] =>
    (hooks?.[kind] ?? []).length === 0
      ? []
      : [
          {
            name: "openState",
            args: { status: kind === "createContainer" ? "creating" : "created", slot: `state/${kind}` },
            from: `/spec/hooks/${kind}`,
          },
        ],
  );
}
