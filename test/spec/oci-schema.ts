import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Ajv, type ValidateFunction } from "ajv";

const NEXT_TO_THE_PROJECT = fileURLToPath(new URL("../../../shared/oci-schema/runtime/", import.meta.url));

/** The runtime-spec's own JSON schemas with their good and bad examples; they are not part of the project. */
export const SCHEMA_DIRECTORY = process.env.OCI_RUNTIME_SCHEMA ?? NEXT_TO_THE_PROJECT;
export const hasSchema = existsSync(`${SCHEMA_DIRECTORY}/config-schema.json`);
export const WITHOUT_SCHEMA =
  "the OCI's JSON schemas are absent: set OCI_RUNTIME_SCHEMA to the runtime-spec's schema directory";

/** The official judge of a config.json, once parsed. */
export function configSchema(): ValidateFunction {
  const ajv = new Ajv({ strict: false, allErrors: false });
  for (const name of readdirSync(SCHEMA_DIRECTORY).filter((name) => name.endsWith(".json"))) {
    // Draft 4 names its dialect in $schema, which ajv does not know; the keywords that are used mean the same.
    const { $schema: _, ...schema } = JSON.parse(readFileSync(`${SCHEMA_DIRECTORY}/${name}`, "utf8"));
    ajv.addSchema(schema, name);
  }
  const judge = ajv.getSchema("config-schema.json");
  if (judge === undefined) throw new Error("config-schema.json does not compile");
  return judge;
}

/** The examples that the schema comes with: [name, text]. */
export function examples(kind: "good" | "bad"): [string, string][] {
  const directory = `${SCHEMA_DIRECTORY}/test/config/${kind}`;
  return readdirSync(directory).map((name) => [name, readFileSync(`${directory}/${name}`, "utf8")]);
}
