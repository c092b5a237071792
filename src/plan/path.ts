/** A path as the kernel's look-ups want it here: absolute, no "." or "..", no double or trailing slash. */
export function normalPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

/** The path itself if it is absolute, else what it means from a directory. */
export function joinPath(directory: string, path: string): string {
  return path.startsWith("/") ? path : `${directory}/${path}`;
}

/** Whether a path leads to a directory or to something in it; both are normal ones. */
export function isBeneath(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === "/" ? "/" : `${directory}/`);
}
