import * as pulumi from "@pulumi/pulumi";
import { PenstockError } from "../runtime/contracts/errors.ts";
import { clouds } from "./clouds.ts";
import { firstSteps } from "./first-steps.ts";
import { deployKubernetes } from "./kubernetes/index.ts";
import { planStack } from "./plan/plan-stack.ts";
import { operatorSecrets } from "./secrets.ts";
import { checkStack } from "./stack/load.ts";

/**
 * The program that Pulumi runs: load, plan, deploy. Everything that can be refused is refused before the first resource.
 * Throws `invalid_config`.
 */
export default async function program(): Promise<Record<string, unknown>> {
  const stackName = pulumi.getStack();
  const config = new pulumi.Config("penstock");
  const stack = checkStack(config.requireObject("stack"), `stacks/Pulumi.${stackName}.yaml`);
  const plan = planStack(stack, { stackName });
  if (plan.cloud === "local") {
    throw new PenstockError("invalid_config", `The stack ${stackName} is one machine: \`npm start\` serves it.`);
  }
  const secrets = operatorSecrets(config, plan);
  const deploy = await clouds[plan.cloud]();
  const cloud = deploy(plan);
  const { endpoint, loadBalancer, adminKey, grafanaPassword } = deployKubernetes(plan, cloud, secrets());
  return {
    endpoint,
    loadBalancer,
    adminKey,
    grafanaPassword,
    links: cloud.links,
    ...firstSteps(endpoint, plan),
  };
}
