import { defineConfig } from "vitest/config";

// Integration tests create containers, which share host resources (the bridge, cgroups): one file at a time.
// biome-ignore lint/style/noDefaultExport: vitest reads its configuration from the default export
export default defineConfig({
  test: { include: ["test/**/*.test.ts"], fileParallelism: false, testTimeout: 30_000, hookTimeout: 120_000 },
});
