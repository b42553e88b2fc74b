import * as pulumi from "@pulumi/pulumi";
import { PenstockError } from "../runtime/contracts/errors.ts";
import { clouds } from "./clouds.ts";
import { deployKubernetes } from "./kubernetes/index.ts";
import type { CloudPlan } from "./plan/plan.ts";
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

/** What to type next, with the stack's own names. */
function firstSteps(endpoint: string, { models }: CloudPlan): Record<string, string> {
  const admin = "$(pulumi stack output adminKey --show-secrets)";
  const json = '-H "Content-Type: application/json"';
  const key = { tenant: "default", name: "first" };
  const request = { model: models[0]?.id, messages: [{ role: "user", content: "Hello" }] };
  const call = (path: string, bearer: string, body: unknown): string =>
    `curl ${endpoint.replace(/\/v1$/, "")}${path} -H "Authorization: Bearer ${bearer}" ${json} -d '${JSON.stringify(body)}'`;
  return { makeKey: call("/admin/keys", admin, key), try: call("/v1/chat/completions", "$KEY", request) };
}
