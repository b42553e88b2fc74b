import { PolicyPack } from "@pulumi/policy";
import * as pulumi from "@pulumi/pulumi";
import type { CloudPlan } from "../infra/plan/plan.ts";
import { planStack } from "../infra/plan/plan-stack.ts";
import { checkStack } from "../infra/stack/load.ts";
import { policiesFor, type PackSubject } from "./adapter.ts";
import { rules } from "./rules.ts";

/** Pulumi tells a pack the stack's name and configuration, as it tells the program: both plan the same. */
function subject(): PackSubject {
  const today = new Date().toISOString().slice(0, "2026-11-21".length);
  try {
    return { plan: planned(), why: "", today };
  } catch (error) {
    const because = error instanceof Error ? error.message : String(error);
    return { plan: null, why: `The plan of this stack is not known: ${because}`, today };
  }
}

function planned(): CloudPlan {
  const stackName = pulumi.getStack();
  const written = new pulumi.Config("penstock").requireObject("stack");
  const plan = planStack(checkStack(written, `stacks/Pulumi.${stackName}.yaml`), { stackName });
  if (plan.cloud === "local") throw new Error(`${stackName} is one machine, and nothing of it is Pulumi's.`);
  return plan;
}

/** Serves from the moment that it is made until Pulumi ends it. */
export const pack = new PolicyPack("penstock", {
  policies: policiesFor(rules, subject()),
  enforcementLevel: "mandatory",
});
