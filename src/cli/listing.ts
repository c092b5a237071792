import { print, printJson, printTable } from "./print.ts";
import { parseTemplate } from "./template.ts";

/** A row by docker's names of its fields. */
export type Row = { [field: string]: string };

/**
 * Prints rows as docker's --format has it: "table", "json", a template, or "table" and a template.
 * @param titles a column's title by its field; those that a plain table shows are named in `columns`
 */
export function printListing(
  rows: readonly Row[],
  { titles, columns }: { titles: Row; columns: readonly string[] },
  format: string,
): void {
  const [, template] = /^table\s+(.*)$/s.exec(format) ?? [];
  if (format === "json") for (const row of rows) printJson(row);
  else if (format === "table" || format === "")
    printTable(
      columns.map((field) => titles[field] ?? field),
      rows.map((row) => columns.map((field) => row[field] ?? "")),
    );
  else if (template === undefined) {
    const render = parseTemplate(format);
    for (const row of rows) print(render(row));
  } else {
    const render = parseTemplate(template);
    printTable(
      render(titles).split("\t"),
      rows.map((row) => render(row).split("\t")),
    );
  }
}
