// The guest's disk and kernels, made of Debian's packages without a loop mount, and kept.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** The guest is this release; its kernel is 6.12. The older one's kernel, 6.1, is the oldest that is tested. */
const RELEASE = "trixie";
const OLDER = "bookworm";
const KERNEL = "linux-image-cloud-amd64";
const DISK_SIZE = "6G";
const TIMEOUT_MS = 15 * 60_000;

/** Copied from this machine, so that what was built here runs there: Node, and the busybox that the fixtures have. */
const COPIED = { "/usr/local/bin/node": process.execPath, "/bin/busybox": "/bin/busybox" };

/**
 * The guest's image, made if it is missing: `disk`, an ext4 file system, and a kernel by its version, such as "6.12".
 * @param say is told what takes long
 */
export function image(say) {
  const kept = join(process.env.CAISSON_CACHE ?? join(homedir(), ".cache/caisson"), "vm");
  const directory = join(kept, digest());
  if (!existsSync(directory)) {
    say(`making the guest's image in ${directory}`);
    mkdirSync(kept, { recursive: true });
    const scratch = mkdtempSync(join(kept, "new-"));
    try {
      make(scratch);
      // of two that made it at the same time, the second's goes
      if (!existsSync(directory)) renameSync(scratch, directory);
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
    for (const name of readdirSync(kept))
      if (/^[0-9a-f]{64}$/.test(name) && join(kept, name) !== directory) rmSync(join(kept, name), { recursive: true });
  }
  const kernels = Object.fromEntries(
    readdirSync(directory).flatMap((name) => {
      const version = /^vmlinuz-(\d+\.\d+)/.exec(name)?.[1];
      return version === undefined ? [] : [[version, join(directory, name)]];
    }),
  );
  return { disk: join(directory, "disk"), kernels };
}

/** Of all that decides what is in the image, but for the packages' versions. */
function digest() {
  const hash = createHash("sha256");
  const guest = readdirSync(join(here, "guest")).sort();
  for (const path of [fileURLToPath(import.meta.url), ...guest.map((name) => join(here, "guest", name))])
    hash.update(`${path.slice(here.length)}\0`).update(readFileSync(path));
  return hash.update(process.version).update(readFileSync("/bin/busybox")).digest("hex");
}

function make(directory) {
  const scratch = mkdtempSync(join(tmpdir(), "caisson-guest-"));
  const tree = join(scratch, "tree");
  try {
    bootstrap(tree);
    for (const [path, source] of Object.entries(COPIED)) cpSync(source, join(tree, path));
    cpSync(join(here, "guest/init"), join(tree, "sbin/caisson-guest"));
    cpSync(join(here, "guest/caisson-guest.service"), join(tree, "etc/systemd/system/caisson-guest.service"));
    for (const name of readdirSync(join(tree, "boot")))
      if (name.startsWith("vmlinuz-")) cpSync(join(tree, "boot", name), join(directory, name));
    rmSync(join(tree, "boot"), { recursive: true });
    // written without a journal: what is written into a snapshot is thrown away
    const features = ["-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1"];
    execFileSync("mke2fs", ["-q", "-F", ...features, "-d", tree, join(directory, "disk"), DISK_SIZE]);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Makes the tree of the guest of packages from where this machine has its own from. */
function bootstrap(tree) {
  const mirror = ownMirror();
  const lines = readFileSync(join(here, "guest/packages.txt"), "utf8").split("\n");
  const packages = [...lines.filter((line) => line !== "" && !line.startsWith("#")), KERNEL];
  // proxies, and what else this machine needs to reach its mirror
  const acquire = `${tree}.conf`;
  writeFileSync(acquire, execFileSync("apt-config", ["dump", "Acquire"]));
  const excluded = ["doc", "man", "locale"].map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`);
  execFileSync(
    "mmdebstrap",
    [
      ...["--mode=root", "--variant=minbase", `--include=${packages.join(",")}`, `--aptopt=${acquire}`],
      ...[...excluded, `--customize-hook=${join(here, "guest/customize")}`],
      ...[RELEASE, tree, `deb ${mirror} ${RELEASE} main`],
    ],
    {
      stdio: ["ignore", "inherit", "pipe"],
      // a mirror that does not answer is given up by apt, address by address and file by file
      timeout: TIMEOUT_MS,
      // the kernel has what it needs to find its root: no initial RAM disk is made for it
      env: { ...process.env, INITRD: "No", OLDER: `deb ${mirror} ${OLDER} main` },
    },
  );
}

/** The address of the archive that this machine's own release comes from, by apt's configuration. */
function ownMirror() {
  const codename = /^VERSION_CODENAME=(.*)$/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1];
  const format = ["--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"];
  const targets = execFileSync("apt-get", ["indextargets", ...format], { encoding: "utf8" }).split("\n");
  const found = targets.find((line) => line.startsWith(`${codename} main `));
  if (found === undefined) throw new Error(`apt has no source of ${codename} main`);
  return found.split(" ")[2];
}
