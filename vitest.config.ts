import { defineConfig } from "vitest/config";
import { PATIENCE } from "./test/support/patience.ts";

// Integration tests create containers, which share host resources (the bridge, cgroups): one file at a time.
// biome-ignore lint/style/noDefaultExport: vitest reads its configuration from the default export
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // what is in test/vm writes to that machine's disks
    exclude: [
      ...(process.env.CAISSON_GUEST === undefined ? ["test/vm/**"] : []),
      // builds the project again and again
      ...(process.env.CAISSON_WEAKENED === undefined ? ["test/faults/weakened.test.ts"] : []),
    ],
    fileParallelism: false,
    testTimeout: 30_000 * PATIENCE,
    hookTimeout: 120_000 * PATIENCE,
  },
});
