/**
 * Who may import whom. Each room is a folder; its value lists the other rooms that it may import from.
 * oxlint.config.ts turns this table into lint errors, so a new room is one line here.
 */
export const rooms = {
  "runtime/contracts": [],
  "runtime/lib": ["runtime/contracts"],
  "runtime/engines": ["runtime/contracts"],
  "runtime/demo": [],
  "runtime/embedded": ["runtime/contracts", "runtime/lib"],
  "runtime/agent": ["runtime/contracts", "runtime/lib", "runtime/engines"],
  "runtime/gateway": ["runtime/contracts", "runtime/lib", "runtime/engines"],
  "runtime/local": [
    "runtime/contracts",
    "runtime/lib",
    "runtime/engines",
    "runtime/agent",
    "runtime/gateway",
    "infra/stack",
  ],
  "infra/catalog": ["runtime/contracts", "infra/stack"],
  "infra/stack": ["runtime/contracts", "runtime/engines"],
  "infra/plan": ["runtime/contracts", "runtime/engines", "infra/catalog", "infra/stack"],
  "infra/lib": [],
  "infra/azure": ["runtime/contracts", "infra/lib", "infra/plan"],
  "infra/aws": ["runtime/contracts", "infra/lib", "infra/plan"],
  "infra/kubernetes": ["runtime/contracts", "runtime/engines", "infra/lib", "infra/plan"],
  "infra/cost": ["runtime/contracts", "infra/catalog", "infra/stack", "infra/plan"],
  "infra/capacity": ["runtime/contracts", "infra/catalog", "infra/stack", "infra/plan", "infra/cost"],
  "infra/commands": [
    "runtime/contracts",
    "runtime/lib",
    "runtime/engines",
    "runtime/agent",
    "runtime/gateway",
    "infra/catalog",
    "infra/stack",
    "infra/plan",
    "infra/kubernetes",
    "infra/cost",
    "infra/capacity",
    "infra/lib",
    "policies",
  ],
  policies: ["runtime/contracts", "infra/catalog", "infra/stack", "infra/plan", "infra/cost"],
} as const satisfies Record<string, readonly string[]>;

/** A folder that is listed in the import table. */
export type Room = keyof typeof rooms;
