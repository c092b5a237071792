const { dlopen } = process;

/** What the addon offers; see native/addon/addon.cc. Every number is a result >= 0 or -errno. */
export interface Addon {
  syscall(nr: number, ...args: Argument[]): number;
  address(bytes: Uint8Array): bigint;
  traceTo(fd: number): number;
  traceStep(index: number, undo?: boolean): void;
  spawn(
    file: number | string,
    argv: string[],
    env: string[],
    descriptors: number[],
    nofileSoft: number,
    leads: boolean,
  ): number;
  poll(descriptors: number[], events: number[], timeoutMs: number): number[] | number;
  catchSignals(numbers: number[]): number;
  send(socket: number, bytes: Uint8Array, descriptors: number[]): number;
  receive(socket: number, bytes: Uint8Array, flags: number): [number, ...number[]];
  socketIn(netns: number, domain: number, type: number, protocol: number): number;
  writeFile(
    parent: number,
    name: Uint8Array,
    bytes: Uint8Array,
    mode: number,
    uid: number,
    gid: number,
    mtimeSeconds: number,
    mtimeNanoseconds: number,
    xattrs: (string | Uint8Array)[],
  ): number;
}

export type Argument = number | bigint | string | Uint8Array | null;

/** The native files the program carries, by the path that this JavaScript can read them under. */
export interface NativeFiles {
  addon: string;
  init: string;
  monitor: string;
  /** Loads the addon; where it is missing, dlopen of the path is right (the package's own file under Node). */
  load?: (module: { exports: unknown }, path: string) => void;
}

let files: NativeFiles | undefined;
let loaded: Addon | undefined;

/** The single-file executable says here where its embedded files are, before anything else runs. */
export function provideNativeFiles(given: NativeFiles): void {
  files = given;
}

/** Where init, monitor and addon can be read. */
export function nativeFiles(): NativeFiles {
  files ??= {
    // dist/js/kernel/addon.js and src/kernel/addon.ts are not equally deep in the package
    addon: packageFile("build/Release/caisson.node"),
    init: packageFile("dist/native/init"),
    monitor: packageFile("dist/native/monitor"),
  };
  return files;
}

function packageFile(path: string): string {
  const here = import.meta.dirname;
  return `${here}/${here.endsWith("/dist/js/kernel") ? "../../.." : "../.."}/${path}`;
}

/** The addon, loaded at its first use. */
export function addon(): Addon {
  if (loaded === undefined) {
    const { addon: path, load } = nativeFiles();
    const module: { exports: unknown } = { exports: {} };
    if (load === undefined) dlopen(module, path);
    else load(module, path);
    loaded = module.exports as Addon; // the one place where native code gets its type
  }
  return loaded;
}
