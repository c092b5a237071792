import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { expectFailure, Machine } from "../support/engine.ts";

let machine: Machine;
const IMAGE = "caisson/quickstart";

beforeAll(async () => {
  machine = await Machine.make();
});
afterEach(() => machine.expectEmpty());
afterAll(() => machine.close());

test("ps and inspect say in docker's words what the kernel knows of containers, whole or in part", () => {
  const started = Date.now();
  const run = (name: string, ...flags: string[]) =>
    machine.succeeds(["run", "-d", "--network", "none", "--name", name, ...flags, IMAGE, "sleep", "60"]);
  const web = run("web", "-l", "tier=front", "-l", "empty", "-v", "data:/data");
  const other = run("other");
  machine.succeeds(["kill", "other"]);
  machine.succeeds(["wait", "other"]);
  const ps = (...words: string[]) => machine.succeeds(["ps", ...words]);

  expect(ps("--format", "{{.ID}} {{.Names}} {{.State}}")).toBe(`${web.slice(0, 12)} web running`);
  expect(ps("-a", "--no-trunc", "--format", "{{.ID}}")).toBe(`${other}\n${web}`);
  expect(ps("--format", "table {{.Names}}\\t{{.Image}}")).toMatch(/^NAMES +IMAGE\nweb +caisson\/quickstart:latest$/);
  expect(JSON.parse(ps("--format", "json"))).toMatchObject({
    Names: "web",
    Command: '"sleep 60"',
    Labels: "tier=front,empty=",
    Mounts: "data",
    Networks: "none",
  });
  const named = (...words: string[]) => ps("--format", "{{.Names}}", ...words);
  expect(named("-l")).toBe("other");
  expect(named("-n", "5")).toBe("other\nweb");
  for (const [filter, names] of [
    ["name=we", "web"],
    ["name=^we$", ""],
    ["name=^/?web$", "web"],
    [`id=${web.slice(0, 5)}`, "web"],
    ["label=tier", "web"],
    ["label=tier=back", ""],
    ["status=exited", "other"],
    ["exited=137", "other"],
    ["ancestor=caisson/quickstart", "web"],
    ["volume=data", "web"],
    ["network=host", ""],
  ] as const)
    expect([filter, named("-f", filter)]).toEqual([filter, names]);
  expectFailure(machine.caisson(["ps", "--filter", "colour=red"]), /it must be one of id, name/);
  expectFailure(machine.caisson(["ps", "--filter", "name=("]), /no regular expression/);
  expectFailure(machine.caisson(["ps", "--format", "{{.Nope}}"]), /no field Nope/);

  const { Pid } = machine.inspect("web").State;
  expect(machine.succeeds(["inspect", "-f", "{{.State.Pid}} {{.Path}} {{join .Args}}", "web"])).toMatch(
    `${Pid} sleep 60`,
  );
  const at = machine.succeeds(["inspect", "-f", "{{.State.StartedAt}}", "web"]);
  expect(Date.parse(at)).toBeGreaterThanOrEqual(started - 1000);
  expect(machine.succeeds(["inspect", "-f", "{{range .Mounts}}{{.Destination}}{{end}}", "web"])).toBe("/data");
  const partly = machine.caisson(["inspect", "nobody", "web", "-f", "{{.Name}}"]);
  expect(partly).toMatchObject({ status: 125, stdout: "/web\n", stderr: "error: there is no container nobody\n" });
  machine.succeeds(["rm", "-f", "web", "other"]);
});

test("published ports are shown in docker's form, as they were asked for and as they are", () => {
  machine.succeeds(["run", "-d", "--name", "ports", "-p", "127.0.0.1:8099:80", "-p", "53/udp", IMAGE, "sleep", "60"]);
  const [{ HostConfig, NetworkSettings }] = JSON.parse(machine.succeeds(["inspect", "ports"]));
  expect(HostConfig.PortBindings).toEqual({
    "80/tcp": [{ HostIp: "127.0.0.1", HostPort: "8099" }],
    "53/udp": [{ HostIp: "", HostPort: "" }],
  });
  expect(NetworkSettings.Ports["80/tcp"]).toEqual([{ HostIp: "127.0.0.1", HostPort: "8099" }]);
  const held = machine.network?.run(["ss", "-Hlun"]) ?? "";
  expect(held).toContain(`:${NetworkSettings.Ports["53/udp"][0].HostPort} `);
  expect(NetworkSettings.Networks.bridge.IPAddress).toBe(NetworkSettings.IPAddress);
  machine.succeeds(["rm", "-f", "ports"]);
});

test("images are listed by name and in part, and inspected like containers", () => {
  expect(machine.succeeds(["images", "--format", "{{.Repository}} {{.Tag}}"])).toBe("caisson/quickstart latest");
  expect(machine.succeeds(["images", "-q", "caisson/quickstart:latest"])).toMatch(/^[0-9a-f]{12}$/);
  expect(machine.succeeds(["images", "-q", "caisson/other"])).toBe("");
  const id = machine.succeeds(["images", "-q", "--no-trunc"]);
  const [image] = JSON.parse(machine.succeeds(["inspect", IMAGE]));
  expect(image).toMatchObject({
    Id: id,
    RepoTags: ["caisson/quickstart:latest"],
    Os: "linux",
    Config: { Cmd: ["sh"] },
  });
});

test("where the kernel has no union mount the layers are copied, and the copy goes with the container", () => {
  const without = 'grep -v -e overlay -e aufs /proc/filesystems > $0 && mount --bind $0 /proc/filesystems && exec "$@"';
  const through = ["unshare", "-m", "sh", "-c", without, `${machine.directory}/filesystems`];
  const id = machine.succeeds(["run", "-d", "--network", "none", IMAGE, "sh", "-c", "echo x > /new; exec sleep 60"], {
    through,
  });
  const { Pid } = machine.inspect(id).State;
  const mounted = machine
    .shell(`cat /proc/${Pid}/mountinfo`)
    .stdout.split("\n")
    .find((line) => line.split(" ")[4] === "/");
  expect(mounted).toContain(`/containers/${id}/root`);
  expect(machine.succeeds(["exec", id, "sh", "-c", "cat /new /srv/www/index.html"])).toMatch(/^x\n<!doctype/);
  expect(machine.succeeds(["inspect", "-f", "{{.Driver}}", id])).toBe("vfs");
  machine.succeeds(["rm", "-f", id]);
  expect(machine.seen([], ["--stat", "/new"]).actions[0]?.error).toBe("ENOENT");
});
