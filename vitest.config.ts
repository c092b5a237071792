import { defineConfig } from "vitest/config";
import { PATIENCE } from "./test/support/patience.ts";

// Integration tests create containers, which share host resources (the bridge, cgroups): one file at a time.
// biome-ignore lint/style/noDefaultExport: vitest reads its configuration from the default export
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // what is in test/vm writes to that machine's disks
    exclude: process.env.CAISSON_GUEST === undefined ? ["test/vm/**"] : [],
    fileParallelism: false,
    testTimeout: 30_000 * PATIENCE,
    hookTimeout: 120_000 * PATIENCE,
  },
});
