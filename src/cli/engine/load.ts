import type { LoadProgress } from "../../image/loading.ts";
import { familiarReference, parseReference } from "../../image/reference.ts";
import { ImageStore } from "../../image/store.ts";
import { isTerminal } from "../../kernel/terminal.ts";
import { print, sayOver } from "../print.ts";
import type { Define } from "./engine.ts";

export const defineLoad: Define = (program, { engine }) => {
  program
    .command("load")
    .description("load the images of an archive (docker save, OCI) or of an OCI layout directory")
    .option("-i, --input <file>", "for docker's habit: the same as FILE")
    .option("-q, --quiet", "without progress")
    .argument("[file]", "by default, or for -, standard input")
    .action(async (file: string | undefined, { input, quiet }: { input?: string; quiet?: boolean }) => {
      const path = file ?? input ?? "-";
      if (path === "-" && isTerminal(0))
        return program.error("error: a file is needed, or an archive on standard input");
      const progress = quiet !== true && isTerminal(2) ? { progress: sayProgress } : {};
      for (const { name, id } of await ImageStore.open(engine().places.data).load(path, progress))
        print(`Loaded image: ${name === undefined ? id : familiarReference(parseReference(name))}`);
    });
};

function sayProgress({ layer, layers, readBytes, sizeBytes }: LoadProgress): void {
  const share = sizeBytes === 0 ? 100 : Math.floor((100 * readBytes) / sizeBytes);
  sayOver(layer === layers && readBytes >= sizeBytes ? "" : `layer ${layer} of ${layers}: ${share} %`);
}
