import { afterAll, afterEach, expect, test } from "vitest";
import { cleanUp, cleanUpFile, type Edit, makeBundle, run, seenIn } from "../support/bundle.ts";
import type { Seen } from "../support/seen.ts";

// What a container is under the peer that engines know, and under us: the same spec, the same witness.

afterEach(cleanUp);
afterAll(cleanUpFile);

/** What must be equal. Left out is what names the run (ids, inode numbers, clocks), and what we do on purpose otherwise. */
function comparable(seen: Seen, id: string): { [fact: string]: unknown } {
  const {
    argv,
    cwd,
    exe,
    pid,
    ppid,
    sid,
    pgid,
    parentDeathSignal,
    uids,
    gids,
    groups,
    umask,
    uidMap,
    gidMap,
    setgroups,
  } = seen;
  const {
    capabilities,
    noNewPrivs,
    seccomp,
    signals,
    hostname,
    domainname,
    personality,
    oomScoreAdj,
    rlimits,
    affinity,
  } = seen;
  // runc masks files with the container's own /dev/null, we with the host's; runc 1.1 leaves the cgroups' tmpfs writable
  const differs = (path: string) =>
    path === "/sys/fs/cgroup" || ["/proc/keys", "/proc/timer_list", "/proc/kcore"].includes(path);
  const mount = ({ mountPoint, type, options }: Seen["mounts"][number]) =>
    differs(mountPoint) ? mountPoint : `${mountPoint} ${type} ${options.split(",").sort().join(",")}`;
  return {
    ...{
      argv,
      cwd,
      exe,
      pid,
      ppid,
      sid,
      pgid,
      parentDeathSignal,
      uids,
      gids,
      groups,
      umask,
      uidMap,
      gidMap,
      setgroups,
    },
    ...{ noNewPrivs, signals, hostname, domainname, personality, oomScoreAdj, affinity, capabilities, rlimits },
    seccomp: seccomp.mode,
    environment: seen.env.toSorted(),
    // runc copies the streams of a foreground container through pipes of its own
    descriptors: seen.descriptors.map(({ fd }) => fd),
    // the unified hierarchy is one that runc 1.1 does not mount beside version 1
    mounts: seen.mounts
      .filter(({ mountPoint }) => mountPoint !== "/sys/fs/cgroup/unified")
      .map(mount)
      .sort(),
    // runc adds a link to /proc/kcore, which the specification does not name; a message queue's root is made with the ipc
    // namespace: by us while we are still the host's user
    devices: seen.devices
      .filter(({ target }) => target !== "/proc/kcore")
      .map(({ name, type, major, minor, mode, uid, gid, target }) => ({
        name,
        type,
        major,
        minor,
        mode,
        target,
        owner: name === "mqueue" ? "" : `${uid}:${gid}`,
      }))
      .sort((one, other) => (one.name < other.name ? -1 : 1)),
    cgroup: seen.cgroup
      .filter((line) => !line.startsWith("0::"))
      .map((line) => line.replace(id, "ID"))
      .sort(),
    network: seen.network,
    sysctls: seen.sysctls,
    scheduler: { policy: seen.scheduler.policy, nice: seen.scheduler.nice },
    ioPriority: seen.ioPriority,
    keyring: seen.keyring?.description.replace(/[0-9a-f]{8}/, "").replace(id, "ID"),
  };
}

const SPECS: { [name: string]: Edit } = {
  "the spec that `spec` writes": () => undefined,
  "a user with groups and limits": (spec) => {
    spec.process.user = { uid: 1000, gid: 1000, additionalGids: [29, 44], umask: 0o27 };
    spec.process.oomScoreAdj = 100;
    spec.process.rlimits = [{ type: "RLIMIT_NOFILE", soft: 64, hard: 128 }];
    spec.process.noNewPrivileges = false;
    spec.process.cwd = "/home/app";
    spec.process.env = ["A=1", "B=2", "A=3", "PATH=/bin"];
    spec.root.readonly = false;
  },
  "a cgroup namespace, sysctls and a tmpfs": (spec) => {
    spec.linux.namespaces?.push({ type: "cgroup" });
    spec.linux.sysctl = { "net.ipv4.ip_forward": "1", "kernel.msgmax": "4096", "net.ipv4.ping_group_range": "0 1000" };
    spec.mounts.push({
      destination: "/tmp",
      type: "tmpfs",
      source: "tmpfs",
      options: ["nosuid", "nodev", "noexec", "size=1m", "mode=1777"],
    });
  },
  "a user namespace": (spec) => {
    spec.linux.namespaces?.push({ type: "user" });
    spec.linux.uidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
    spec.linux.gidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
  },
  "a seccomp filter and no network of its own": (spec) => {
    spec.linux.namespaces = spec.linux.namespaces?.filter(({ type }) => type !== "network") ?? [];
    spec.linux.seccomp = {
      defaultAction: "SCMP_ACT_ALLOW",
      syscalls: [{ names: ["kexec_load"], action: "SCMP_ACT_ERRNO" }],
    };
  },
};

test.each(Object.entries(SPECS))("%s makes the same container as runc does", (_, edit) => {
  const ours = makeBundle((spec) => {
    edit(spec);
    // runc 1.1 knows the specification of its time
    spec.ociVersion = "1.0.2";
  });
  const seen = comparable(seenIn(run(ours)), ours.id);
  const theirs = comparable(seenIn(run(ours, { program: "runc" })), ours.id);
  expect(seen).toEqual(theirs);
});
