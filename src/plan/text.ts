import type { Plan, Step } from "./step.ts";

/** A plan as JSON: numbers beyond 2^53 as {"$integer": "…"}, bytes as {"$bytes": base64}. */
export function printPlan(plan: Plan): string {
  return JSON.stringify(plan, (_, value: unknown) => {
    if (typeof value === "bigint") return { $integer: value.toString() };
    if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString("base64") };
    if (isBufferJson(value)) return { $bytes: Buffer.from(value.data).toString("base64") };
    return value;
  });
}

/** What printPlan printed; from our own directory, so its shape is known. */
export function parsePlan(text: string): Plan {
  const plan: Step[] = JSON.parse(text, (_, value: unknown) => {
    if (typeof value !== "object" || value === null) return value;
    if ("$integer" in value) return BigInt(String(value.$integer));
    if ("$bytes" in value) return new Uint8Array(Buffer.from(String(value.$bytes), "base64"));
    return value;
  });
  return plan;
}

/** Buffer has a toJSON of its own, which runs before the replacer. */
function isBufferJson(value: unknown): value is { data: number[] } {
  return (
    typeof value === "object" &&
    value !== null &&
    "type" in value &&
    value.type === "Buffer" &&
    "data" in value &&
    Array.isArray(value.data)
  );
}
