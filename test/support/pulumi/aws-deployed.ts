import { expect } from "vitest";
import { deployAws } from "../../../infra/aws/index.ts";
import type { CloudOutputs } from "../../../infra/cloud.ts";
import type { CloudPlan } from "../../../infra/plan/plan.ts";
import { planOf } from "../plans.ts";
import { awsMocks } from "./aws.ts";
import { underMocks, type MockOptions, type Registered } from "./mocks.ts";

/** What a deployment registered and answered. */
export interface Deployed {
  readonly outputs: CloudOutputs;
  readonly resources: readonly Registered[];
  readonly of: (type: string) => Registered[];
  /** The only one of a type; with a name, the only one of that name. */
  readonly only: (type: string, name?: string) => Registered;
}

/** Deploys a plan on AWS under mocks. */
export async function deployedOnAws(
  plan: CloudPlan,
  options: Pick<MockOptions<unknown>, "config"> = {},
): Promise<Deployed> {
  const { resources, result } = await underMocks({ program: () => deployAws(plan), ...awsMocks, ...options });
  // `ec2/vpc:Vpc` is written as `ec2:Vpc` here.
  const of = (type: string): Registered[] =>
    resources.filter((each) => each.type.replace(/^aws:(\w+)\/\w+:/, "$1:") === type);
  return {
    outputs: result,
    resources,
    of,
    only: (type, name) => {
      const [first, ...more] = of(type).filter((each) => name === undefined || each.name === name);
      expect(more).toEqual([]);
      if (first === undefined) throw new Error(`There is no ${type} ${name ?? ""}.`);
      return first;
    },
  };
}

/** Plans of the stacks that come with Penstock. */
export const plans = { dev: await planOf("aws-dev"), prod: await planOf("aws-prod") };

const samples = new Map<string, Promise<Deployed>>();

/** The deployment of a stack that comes with Penstock: tests that change nothing share it. */
export function sample(environment: "dev" | "prod"): Promise<Deployed> {
  const made = samples.get(environment) ?? deployedOnAws(plans[environment]);
  samples.set(environment, made);
  return made;
}
