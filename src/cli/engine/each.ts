import { sayError } from "../print.ts";

/** Docker's habit: one that cannot be served does not keep the others from being served. @returns the exit status */
export function forEachName(names: readonly string[], serve: (name: string) => void): number {
  let status = 0;
  for (const name of names) {
    try {
      serve(name);
    } catch (error) {
      sayError(error);
      status = 125;
    }
  }
  return status;
}
