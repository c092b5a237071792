/** One range of ids: `size` of them, those from `disk` on are seen as those from `shown` on. */
export interface IdRange {
  disk: number;
  shown: number;
  size: number;
  /** `shown` counts inside the container's user namespace. */
  relative: boolean;
}

/** crun's extended syntax; a kind that is not named is mapped as in the container. */
export interface IdmapRanges {
  uids?: IdRange[];
  gids?: IdRange[];
}

/**
 * Reads what stands behind "idmap=": "uids=0-1000-10#10-5000-1;gids=@0-0-10" (crun(1), "idmap mount options").
 * @returns undefined when it is not of that form
 */
export function parseIdmap(text: string): IdmapRanges | undefined {
  const ranges: IdmapRanges = {};
  for (const part of text.split(";")) {
    const [, kind, list = ""] = /^(uids|gids)=(.+)$/.exec(part) ?? [];
    if ((kind !== "uids" && kind !== "gids") || ranges[kind] !== undefined) return;
    const parsed = list.split("#").map(parseRange);
    if (parsed.includes(undefined)) return;
    ranges[kind] = parsed.filter((range) => range !== undefined);
  }
  return ranges;
}

function parseRange(text: string): IdRange | undefined {
  const [, at, disk, shown, size] = /^(@?)(\d{1,10})-(\d{1,10})-(\d{1,10})$/.exec(text) ?? [];
  const range = { disk: Number(disk), shown: Number(shown), size: Number(size), relative: at === "@" };
  const valid = range.size >= 1 && Math.max(range.disk, range.shown) + range.size <= 0xffff_ffff;
  return valid ? range : undefined;
}
