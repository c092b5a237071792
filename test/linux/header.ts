import { existsSync, readFileSync } from "node:fs";

/** The constants of one of the kernel's headers, as installed: name and number are the expression's groups. */
export function headerNumbers(name: string, expression: RegExp): Record<string, number> | undefined {
  const path = `/usr/include/${name}`;
  if (!existsSync(path)) return undefined;
  const found = [...readFileSync(path, "utf8").matchAll(expression)];
  if (found.length === 0) throw new Error(`${path} has none of ${expression}`);
  return Object.fromEntries(found.map(([, name, number]) => [name, Number(number)]));
}
