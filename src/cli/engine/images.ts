import { familiarReference, parseReference } from "../../image/reference.ts";
import { ImageStore, type ImageSummary } from "../../image/store.ts";
import { printListing, type Row } from "../listing.ts";
import { print } from "../print.ts";
import type { Define } from "./engine.ts";
import { ago } from "./time.ts";

interface Options {
  quiet?: boolean;
  trunc: boolean;
  format: string;
}

const TITLES = {
  Repository: "REPOSITORY",
  Tag: "TAG",
  Image: "IMAGE",
  ID: "ID",
  Digest: "DIGEST",
  CreatedAt: "CREATED AT",
  CreatedSince: "CREATED",
  Size: "SIZE",
};
const COLUMNS = ["Image", "ID", "CreatedSince", "Size"];

export const defineImages: Define = (program, { engine }) => {
  program
    .command("images")
    .description("list images")
    .option("-a, --all", "for docker's habit: there are no others")
    .option("-q, --quiet", "ids only")
    .option("--no-trunc", "whole ids")
    .option("--format <format>", "table, json, or a template such as '{{.Repository}}:{{.Tag}}'", "table")
    .argument("[image]", "only those of this name, with whichever tag, or with this one")
    .action((name: string | undefined, { quiet, trunc, format }: Options) => {
      const rows = ImageStore.open(engine().places.data)
        .list()
        .map((image) => row(image, trunc))
        .filter(({ Repository, Image }) => name === undefined || name === Repository || name === Image);
      if (quiet === true) for (const { ID } of rows) print(ID ?? "");
      else printListing(rows, { titles: TITLES, columns: COLUMNS }, format);
    });
};

function row({ name, id, manifestDigest, created, sizeBytes }: ImageSummary, short: boolean): Row {
  const image = name === undefined ? "<none>" : familiarReference(parseReference(name));
  const [, repository = image, tag = "<none>"] = /^(.*):([^:/]+)$/.exec(image) ?? [];
  return {
    Repository: repository,
    Tag: tag,
    Image: image,
    ID: short ? id.replace(/^sha256:/, "").slice(0, 12) : id,
    Digest: manifestDigest,
    CreatedAt: created ?? "",
    CreatedSince: created === undefined ? "" : `${ago(created)} ago`,
    Size: `${(sizeBytes / 1e6).toFixed(1)} MB`,
  };
}
