import { InvalidArgumentError } from "commander";

const UNITS = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["week", 604_800],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
] as const;

/** How long ago a moment (RFC 3339) was, in one unit: "3 minutes". */
export function ago(moment: string): string {
  const seconds = Math.max((Date.now() - Date.parse(moment)) / 1000, 0);
  for (const [unit, length] of UNITS) {
    const count = Math.floor(seconds / length);
    if (count >= 1) return `${count} ${unit}${count === 1 ? "" : "s"}`;
  }
  return "less than a second";
}

const LENGTHS: { [unit: string]: number } = { h: 3_600_000, m: 60_000, s: 1000, ms: 1, us: 1e-3, µs: 1e-3, ns: 1e-6 };

/**
 * A moment as Docker's flags take it: RFC 3339 or a part of it, seconds since the epoch, or how long ago, such as "1h30m".
 * @returns milliseconds since the epoch
 */
export function parseMoment(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  if (/^(\d+(\.\d+)?(h|ms|m|s|us|µs|ns))+$/.test(text)) {
    const parts = [...text.matchAll(/(\d+(?:\.\d+)?)([a-zµ]+)/g)];
    return Date.now() - parts.reduce((sum, [, number, unit = ""]) => sum + Number(number) * (LENGTHS[unit] ?? 0), 0);
  }
  const moment = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(moment))
    throw new InvalidArgumentError("it must be a time such as 2026-01-02T15:04:05Z, or 10m for ten minutes ago.");
  return moment;
}
