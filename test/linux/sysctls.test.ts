import { expect, test } from "vitest";
import { sysctlNamespace, sysctlPath } from "../../src/linux/sysctls.ts";

test.each([
  ["net.ipv4.ip_forward", "net/ipv4/ip_forward"],
  ["net/ipv4/ip_forward", "net/ipv4/ip_forward"],
  ["net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"],
  ["net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"],
  ["", undefined],
  ["kernel", undefined],
  [".kernel.x", undefined],
  ["/kernel/x", undefined],
  ["net..x", undefined],
  ["net/../kernel/panic", undefined],
  ["net.//.kernel.panic", undefined],
  ["net/./x", undefined],
  ["net.x.", undefined],
])("the path of %j is %j", (name, path) => {
  expect(sysctlPath(name)).toBe(path);
});

test.each([
  ["net/core/somaxconn", "network"],
  ["kernel/sem", "ipc"],
  ["fs/mqueue/msg_max", "ipc"],
  ["kernel/domainname", "uts"],
  ["user/max_user_namespaces", "user"],
  ["kernel/core_pattern", undefined],
  ["kernel/shmmaxx", undefined],
  ["fs/mqueue", undefined],
])("%s belongs to %s", (path, type) => {
  expect(sysctlNamespace(path)).toBe(type);
});
