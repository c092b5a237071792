/**
 * Options for mounting layers (directories, the top one first) with aufs: those of mount(2), then those of a remount for
 * each further group, because a page holds only so many. Layers are unpacked with aufs' own whiteouts for it.
 * Follows aufs(5); mainline kernels have no aufs, so what is tested is this list, not the mount.
 */
export function aufsOptions(upper: string, layers: readonly string[], pageBytes = 4096): string[] {
  const branches = layers.map((layer) => `${layer}=ro+wh`);
  const options: string[] = [];
  let current = `br:${upper}=rw`;
  const fixed = ",dio,xino=/dev/shm/aufs.xino";
  for (const branch of branches) {
    const isFirst = options.length === 0;
    const longer = isFirst ? `${current}:${branch}` : `${current},append:${branch}`;
    // the page ends with a NUL
    if (Buffer.byteLength(longer) + (isFirst ? fixed.length : 0) < pageBytes) current = longer;
    else {
      options.push(isFirst ? current + fixed : current);
      current = `append:${branch}`;
    }
  }
  options.push(options.length === 0 ? current + fixed : current);
  return options;
}
