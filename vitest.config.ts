import { configDefaults, defineConfig } from "vitest/config";

/** Folders whose tests run against servers of others. `test/support/global-setup.ts` gets these, by the project's name. */
const withServers = [
  { name: "stores", folder: "test/agent/stores", groupOrder: 0 },
  // After all others, beside which llama-server is built.
  { name: "contract", folder: "test/contract", groupOrder: 1 },
] as const;

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
          exclude: [...configDefaults.exclude, ...withServers.map(({ folder }) => `${folder}/**`)],
        },
      },
      ...withServers.map(({ name, folder, groupOrder }) => ({
        extends: true as const,
        test: {
          name,
          include: [`${folder}/**/*.test.ts`],
          globalSetup: "test/support/global-setup.ts",
          sequence: { groupOrder },
        },
      })),
    ],
  },
});
