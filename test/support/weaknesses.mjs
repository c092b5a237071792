// What can be taken out of a lesson's containers, by a name that says how they are then.

/** Changes the spec after the lesson has. */
const spec = (change) => (wanted) => ({
  ...wanted,
  spec: (given) => {
    wanted.spec?.(given);
    change(given);
  },
});

/** Leaves steps out of the plan, after those that the lesson leaves out. */
const without =
  (...kinds) =>
  (wanted) => ({
    ...wanted,
    alter: (plan) => (wanted.alter?.(plan) ?? plan).filter(({ name }) => !kinds.includes(name)),
  });

export const WEAKNESSES = {
  "as they are": (wanted) => wanted,
  "with a jail that is their root": (wanted) => ({
    ...spec(({ mounts }) => {
      mounts.push({ destination: "/jail", type: "bind", source: "rootfs", options: ["rbind"] });
    })(wanted),
    jail: undefined,
  }),
  "with the host's /proc": spec(({ mounts }) => {
    const proc = mounts.find(({ destination }) => destination === "/proc");
    Object.assign(proc, { type: "bind", source: "/proc", options: ["rbind", "rro"] });
  }),
  "in the host's pid namespace": spec(({ linux }) => {
    linux.namespaces = linux.namespaces.filter(({ type }) => type !== "pid");
  }),
  "by the whole plan": (wanted) => ({ ...wanted, alter: undefined }),
  "with CAP_CHOWN": spec(({ process }) => {
    process.capabilities.bounding.push("CAP_CHOWN");
  }),
  "with a private root": spec(({ linux }) => {
    delete linux.rootfsPropagation;
  }),
  "without layers": (wanted) => ({ ...wanted, layers: false }),
  "with a shell as process 1": spec(({ process }) => {
    process.args = ["/bin/sh", "-c", "trap exit TERM; while :; do sleep 0.05; done"];
  }),
  "without a filter": spec(({ linux }) => {
    delete linux.seccomp;
  }),
  "without a leak": (wanted) => ({ ...wanted, preserved: undefined }),
  "with another leak": (wanted) => ({ ...wanted, preserved: wanted.preserved ?? [0] }),
  "without limits": spec(({ linux }) => {
    const { pids: _, memory: __, ...others } = linux.resources;
    linux.resources = others;
  }),
  "without rules of the firewall": without("publishPorts"),
  "with nothing masked": spec(({ linux }) => {
    linux.maskedPaths = [];
  }),
  "with a writable /proc/sys": spec(({ linux }) => {
    linux.readonlyPaths = ["/proc/sysrq-trigger"];
  }),
};
