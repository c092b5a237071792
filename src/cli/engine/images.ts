import { familiarReference, parseReference } from "../../image/reference.ts";
import { ImageStore } from "../../image/store.ts";
import { print, printJson, printTable } from "../print.ts";
import type { Define } from "./engine.ts";
import { ago } from "./time.ts";

export const defineImages: Define = (program, { engine }) => {
  program
    .command("images")
    .description("list images")
    .option("-q, --quiet", "ids only")
    .option("--format <format>", "table or json", "table")
    .action(({ quiet, format }: { quiet?: boolean; format: string }) => {
      const images = ImageStore.open(engine().places.data).list();
      if (quiet === true) for (const { id } of images) print(shortId(id));
      else if (format === "json") for (const image of images) printJson(image);
      else
        printTable(
          ["IMAGE", "ID", "CREATED", "SIZE"],
          images.map(({ name, id, created, sizeBytes }) => [
            name === undefined ? "<none>" : familiarReference(parseReference(name)),
            shortId(id),
            created === undefined ? "" : `${ago(created)} ago`,
            `${(sizeBytes / 1e6).toFixed(1)} MB`,
          ]),
        );
    });
};

function shortId(id: string): string {
  return id.replace(/^sha256:/, "").slice(0, 12);
}
