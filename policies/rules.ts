import type { Rule } from "./rule.ts";
import { accessRules } from "./rules/access.ts";
import { capacityRules } from "./rules/capacity.ts";
import { clusterRules } from "./rules/cluster.ts";
import { costRules } from "./rules/cost.ts";
import { dataRules } from "./rules/data.ts";
import { identityRules } from "./rules/identity.ts";
import { networkRules } from "./rules/network.ts";
import { nodeRules } from "./rules/nodes.ts";
import { planRules } from "./rules/plan.ts";
import { podRules } from "./rules/pods.ts";
import { softwareRules } from "./rules/software.ts";

/** Every rule there is. docs/policies.md is their table. */
export const rules: readonly Rule[] = [
  ...costRules,
  ...capacityRules,
  ...planRules,
  ...dataRules,
  ...networkRules,
  ...accessRules,
  ...identityRules,
  ...clusterRules,
  ...nodeRules,
  ...podRules,
  ...softwareRules,
];
