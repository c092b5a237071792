import { CAPABILITIES } from "../../linux/capabilities.ts";
import { MEMORY_POLICY_FLAGS, MEMORY_POLICY_MODES } from "../../linux/memory-policy.ts";
import { knownMountOptions } from "../../linux/mount-options.ts";
import { NAMESPACES } from "../../linux/namespaces.ts";
import { printJson } from "../print.ts";
import type { Command } from "./runtime.ts";

/** What this build can do, whatever the host: OCI features.md. */
export const features: Command = {
  usage: "",
  flags: {},
  words: [0, 0],
  run() {
    printJson(
      {
        ociVersionMin: "1.0.0",
        ociVersionMax: "1.3.0",
        hooks: ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        mountOptions: knownMountOptions(),
        annotations: { "org.opencontainers.runc.checkpoint.enabled": "true" },
        potentiallyUnsafeConfigAnnotations: ["org.systemd.property."],
        linux: {
          namespaces: Object.keys(NAMESPACES).sort(),
          capabilities: CAPABILITIES,
          cgroup: { v1: true, v2: true, systemd: true, systemdUser: true, rdma: true },
          seccomp: {
            enabled: true,
            actions: [
              "SCMP_ACT_ALLOW",
              "SCMP_ACT_ERRNO",
              "SCMP_ACT_KILL",
              "SCMP_ACT_KILL_PROCESS",
              "SCMP_ACT_KILL_THREAD",
              "SCMP_ACT_LOG",
              "SCMP_ACT_NOTIFY",
              "SCMP_ACT_TRACE",
              "SCMP_ACT_TRAP",
            ],
            operators: [
              "SCMP_CMP_EQ",
              "SCMP_CMP_GE",
              "SCMP_CMP_GT",
              "SCMP_CMP_LE",
              "SCMP_CMP_LT",
              "SCMP_CMP_MASKED_EQ",
              "SCMP_CMP_NE",
            ],
            archs: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
            knownFlags: [
              "SECCOMP_FILTER_FLAG_LOG",
              "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
              "SECCOMP_FILTER_FLAG_TSYNC",
              "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
            ],
            supportedFlags: [
              "SECCOMP_FILTER_FLAG_LOG",
              "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
              "SECCOMP_FILTER_FLAG_TSYNC",
              "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
            ],
          },
          apparmor: { enabled: true },
          selinux: { enabled: true },
          intelRdt: { enabled: true, schemata: true, monitoring: true },
          memoryPolicy: { modes: Object.keys(MEMORY_POLICY_MODES), flags: Object.keys(MEMORY_POLICY_FLAGS) },
          mountExtensions: { idmap: { enabled: true } },
          netDevices: { enabled: true },
        },
      },
      2,
    );
    return 0;
  },
};
