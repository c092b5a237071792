/** What a container of the engine is: the Docker API's own shapes and names, as far as they mean something here. */
export interface ContainerJson {
  version: 1;
  /** 64 hexadecimal digits. */
  id: string;
  name: string;
  /** RFC 3339. */
  created: string;
  /** Familiar name as it was asked for, and digest of the configuration; empty for a bundle. */
  image: string;
  imageId: string;
  config: ContainerConfig;
  hostConfig: HostConfig;
  /** What is mounted from the host, by -v or as the image's volumes. */
  mounts: MountPoint[];
  /** Names of the volumes that were made for this container alone. */
  anonymousVolumes: string[];
  root: ContainerRoot;
}

/** A volume or a bind, in the Docker API's shape. */
export interface MountPoint {
  Type: "bind" | "volume";
  /** Of a volume. */
  Name?: string;
  /** On the host; absolute. */
  Source: string;
  Destination: string;
  Driver?: "local";
  /** The options as they were given. */
  Mode: string;
  RW: boolean;
  Propagation: string;
}

export interface ContainerConfig {
  Hostname: string;
  /** "", a name or id, or "user:group". */
  User: string;
  Tty: boolean;
  OpenStdin: boolean;
  /** Whether the input ends with that of whoever is attached; that of a detached container stays open. */
  StdinOnce?: boolean;
  Env: string[];
  Entrypoint: string[];
  Cmd: string[];
  WorkingDir: string;
  StopSignal: string;
  Labels: { [name: string]: string };
}

export interface HostConfig {
  /** As for -v. */
  Binds: string[];
  /** "bridge", "none", "host" or "container:ID". */
  NetworkMode: string;
  /** As for -p. */
  PortBindings: string[];
  /** Bytes; 0: no limit. */
  Memory: number;
  /** 10⁹ is one processor; 0: no limit. */
  NanoCpus: number;
  CpusetCpus: string;
  /** 0: no limit. */
  PidsLimit: number;
  ReadonlyRootfs: boolean;
  /** Options by destination. */
  Tmpfs: { [destination: string]: string };
  CapAdd: string[];
  CapDrop: string[];
  SecurityOpt: string[];
  /** "" or "host": ours; "auto" or "FIRST:SIZE": a new one that maps ids from FIRST on. */
  UsernsMode: string;
  Privileged: boolean;
  AutoRemove: boolean;
}

/** Where its root comes from. */
export type ContainerRoot =
  | { kind: "image"; layers: string[]; driver: "overlay" | "aufs" | "vfs" }
  /** A bundle's own directory and config.json. */
  | { kind: "bundle"; bundle: string };
