// What can be taken out of a lesson's containers, by a name that says what is missing then.

/** Changes the spec after the lesson has. */
const spec = (change) => (wanted) => ({
  ...wanted,
  spec: (given) => {
    wanted.spec?.(given);
    change(given);
  },
});

const leave = (type) =>
  spec(({ linux }) => {
    linux.namespaces = linux.namespaces.filter((namespace) => namespace.type !== type);
  });

export const WEAKNESSES = {
  none: (wanted) => wanted,
  "its jail is its root": (wanted) => ({
    ...wanted,
    jail: undefined,
    spec: (given) => {
      wanted.spec?.(given);
      given.mounts.push({ destination: "/jail", type: "bind", source: "rootfs", options: ["rbind"] });
    },
  }),
  "the host's /proc": spec(({ mounts }) => {
    const proc = mounts.find(({ destination }) => destination === "/proc");
    Object.assign(proc, { type: "bind", source: "/proc", options: ["rbind", "rro"] });
  }),
  "the host's pid namespace": leave("pid"),
  "maps although left out": (wanted) => ({ ...wanted, alter: undefined }),
  "all capabilities": spec(({ process }) => {
    process.capabilities.bounding.push("CAP_CHOWN");
  }),
};
