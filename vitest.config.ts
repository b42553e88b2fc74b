import { defineConfig } from "vitest/config";

/** Their folders, each a project whose tests run against servers of others; `test/support/global-setup.ts` gets these. */
const withServers = { stores: "test/agent/stores", contract: "test/contract" } as const;

export default defineConfig({
  test: {
    environment: "node",
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    expect: { poll: { timeout: 15_000 } },
    projects: [
      {
        extends: true,
        test: {
          name: "penstock",
          include: ["test/**/*.test.ts"],
          exclude: Object.values(withServers).map((folder) => `${folder}/**`),
        },
      },
      ...Object.entries(withServers).map(([name, folder]) => ({
        extends: true as const,
        test: {
          name,
          include: [`${folder}/**/*.test.ts`],
          globalSetup: "test/support/global-setup.ts",
          // Last, as llama-server is built beside the other tests.
          sequence: { groupOrder: 1 },
        },
      })),
    ],
  },
});
