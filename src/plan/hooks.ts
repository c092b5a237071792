import type { Hook, HookName, Spec } from "../spec/spec.ts";
import type { HookArgs, Step } from "./step.ts";

/** Hooks of the runtime's namespaces, one step each, in their order: OCI config.md, "POSIX-platform Hooks". */
export function hostHooks({ hooks }: Spec, ...kinds: HookName[]): Step[] {
  return kinds.flatMap((kind) =>
    (hooks?.[kind] ?? []).map(
      (hook, at): Step => ({ name: "runHostHook", args: hookArgs(kind, hook, at), from: `/spec/hooks/${kind}/${at}` }),
    ),
  );
}

/** The first step of all, so that it is the last to be taken back: runtime.md, "Lifecycle", 12 and 13. */
export function promiseHooks({ hooks }: Spec): Step[] {
  const poststop = hooks?.poststop ?? [];
  return poststop.length === 0
    ? []
    : [
        {
          name: "promiseHooks",
          args: { hooks: poststop.map((hook, at) => hookArgs("poststop", hook, at)) },
          from: "/spec/hooks/poststop",
        },
      ];
}

function hookArgs(kind: HookName, { path, args = [path], env, timeout = 0 }: Hook, at: number): HookArgs {
  return { kind, at, path, args, ...(env === undefined ? {} : { env }), timeoutMs: timeout * 1000 };
}

/**
 * Hooks of the container's namespaces; their standard input is filled by the host once the pid is known.
 * @param inherited the environment of those that name none
 */
export function initHooks({ hooks }: Spec, kind: HookName, inherited: readonly string[] = []): Step[] {
  const wanted = hooks?.[kind] ?? [];
  const from = `/spec/hooks/${kind}`;
  if (wanted.length === 0) return [];
  const state = `state/${kind}`;
  return [
    ...wanted.map(
      ({ path, args = [path], env = inherited, timeout = 0 }, at): Step => ({
        name: "runHook",
        args: { hook: [path, ...args], environment: env, state, timeoutMs: timeout * 1000 },
        from: `${from}/${at}`,
      }),
    ),
    // behind the filter it is left to execve: one call less that has to be allowed
    ...(kind === "startContainer" ? [] : [{ name: "closeSlot" as const, args: { file: state }, from }]),
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
