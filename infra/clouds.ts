import type { DeployCloud } from "./cloud.ts";
import type { Cloud } from "./stack/schema.ts";

/** The cloud registry: a new cloud is one room and one line here. A cloud's SDK is loaded only for its own stacks. */
export const clouds = {
  azure: async () => (await import("./azure/index.ts")).deployAzure,
  aws: async () => (await import("./aws/index.ts")).deployAws,
} as const satisfies Record<Cloud, () => Promise<DeployCloud>>;
