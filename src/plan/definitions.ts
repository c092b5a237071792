import { INIT_STEPS, type Kind } from "./step.ts";

const WIRE: Record<Kind, string> = {
  number: "NUMBER",
  string: "STRING",
  strings: "STRINGS",
  bytes: "BYTES",
  reads: "READS",
  writes: "WRITES",
  closes: "CLOSES",
};

/** steps.def: the init side of the vocabulary as an X-macro, STEP(opcode, name, the kinds of its five arguments). */
export function definitions(): string {
  const lines = Object.entries(INIT_STEPS).map(([name, { opcode, args }]) => {
    const kinds: string[] = Object.values(args).map((kind) => WIRE[kind]);
    while (kinds.length < 5) kinds.push("NONE");
    return `STEP(${opcode}, ${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}, ${kinds.join(", ")})`;
  });
  return `/* Made from src/plan/step.ts by npm run generate. */\n${lines.join("\n")}\n`;
}
