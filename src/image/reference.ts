import { ContainerError } from "../error.ts";

/** An image's name in full: nothing is left to a default. At least one of tag and digest is there. */
export interface Reference {
  /** "docker.io", "localhost:5000", … */
  registry: string;
  /** "library/debian" */
  repository: string;
  tag?: string;
  /** "sha256:…" */
  digest?: string;
}

const DEFAULT_REGISTRY = "docker.io";
const COMPONENT = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const DOMAIN_COMPONENT = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const REGISTRY = new RegExp(`^(?:${DOMAIN_COMPONENT}(?:\\.${DOMAIN_COMPONENT})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

/** Hexadecimal digits of a digest by algorithm; only these are accepted, the store computes the first alone. */
const DIGEST = /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/;

/**
 * Checks a digest before it becomes part of a path: "sha256:" and 64 lower-case hexadecimal digits.
 * @returns the hexadecimal digits @throws ContainerError ERR_DIGEST
 */
export function digestHex(digest: unknown): string {
  if (typeof digest !== "string" || !DIGEST.test(digest) || !digest.startsWith("sha256:"))
    throw new ContainerError({ message: `cannot accept digest ${JSON.stringify(digest)}`, code: "ERR_DIGEST" });
  return digest.slice("sha256:".length);
}

/**
 * Reads `[registry/]name[:tag][@digest]` by the grammar of docker (distribution/reference): the first component is a
 * registry if it has a dot, a colon or a capital letter, or is "localhost"; names of one component are in "library".
 * Neither tag nor digest means the tag "latest".
 * @throws ContainerError ERR_REFERENCE
 */
export function parseReference(text: string): Reference {
  const refuse = (why: string): never => {
    throw new ContainerError({
      message: `cannot use ${JSON.stringify(text)} as an image name: ${why}`,
      code: "ERR_REFERENCE",
    });
  };
  if (/^[a-f0-9]{64}$/.test(text)) refuse("64 hexadecimal digits are an image id");
  let rest = text;
  let digest: string | undefined;
  const at = rest.indexOf("@");
  if (at >= 0) {
    digest = rest.slice(at + 1);
    rest = rest.slice(0, at);
    if (!DIGEST.test(digest)) refuse("the digest is not sha256: and 64 hexadecimal digits");
  }
  const slash = rest.indexOf("/");
  const first = rest.slice(0, Math.max(slash, 0));
  const isRegistry = /[.:A-Z]/.test(first) || first === "localhost";
  const registry = isRegistry ? first : DEFAULT_REGISTRY;
  if (isRegistry) rest = rest.slice(slash + 1);
  let tag: string | undefined;
  const colon = rest.indexOf(":");
  if (colon >= 0) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) refuse("the tag may have letters, digits, '_', '.' and '-', 128 at most");
  }
  if (!REGISTRY.test(registry)) refuse(`${JSON.stringify(registry)} is not a registry's name`);
  if (rest !== rest.toLowerCase()) refuse("the repository must be lower-case");
  if (!REPOSITORY.test(rest)) refuse("the repository may have lower-case letters, digits and single separators");
  const official = registry === "index.docker.io" ? DEFAULT_REGISTRY : registry;
  const repository = official === DEFAULT_REGISTRY && !rest.includes("/") ? `library/${rest}` : rest;
  if (official.length + repository.length + 1 > 255) refuse("it is longer than 255 characters");
  return {
    registry: official,
    repository,
    ...(tag !== undefined ? { tag } : digest === undefined ? { tag: "latest" } : {}),
    ...(digest !== undefined && { digest }),
  };
}

/** The whole name, "docker.io/library/debian:12". */
export function formatReference({ registry, repository, tag, digest }: Reference): string {
  return `${registry}/${repository}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
}

/** The name as people say it, "debian:12": docker.io and library/ are left out. */
export function familiarReference(reference: Reference): string {
  const full = formatReference(reference);
  const prefix = `${DEFAULT_REGISTRY}/`;
  if (!full.startsWith(prefix)) return full;
  const short = full.slice(prefix.length);
  return short.startsWith("library/") && !short.slice("library/".length).includes("/")
    ? short.slice("library/".length)
    : short;
}
