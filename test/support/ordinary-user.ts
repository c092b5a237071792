import { execFileSync } from "node:child_process";
import { template } from "../../src/spec/template.ts";
import { type Bundle, type Edit, makeBundle, rewrite } from "./bundle.ts";

/** Ids that nobody on the host has. */
export const UID = 54_321;
export const GID = 54_322;

/** Words that run the rest as that user, who can get no privileges either. */
export const USER = [
  "setpriv",
  `--reuid=${UID}`,
  `--regid=${GID}`,
  "--clear-groups",
  "--inh-caps=-all",
  "--bounding-set=-all",
];

/** A bundle of that user's, with the spec that `spec --rootless` writes, and the probe in it. */
export function rootless(edit: Edit = () => undefined, ids = { uid: UID, gid: GID }): Bundle {
  const bundle = makeBundle();
  const { linux = {}, mounts = [] } = template({ rootless: ids });
  rewrite(bundle, (spec) => {
    spec.linux = linux;
    spec.mounts = mounts;
    edit(spec);
  });
  execFileSync("chown", ["-R", `${UID}:${GID}`, bundle.path]);
  return bundle;
}
