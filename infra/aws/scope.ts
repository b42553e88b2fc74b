import { getCallerIdentityOutput } from "@pulumi/aws/getCallerIdentity.js";
import { Provider } from "@pulumi/aws/provider.js";
import * as pulumi from "@pulumi/pulumi";
import { concern, type Child as ComponentChild } from "../lib/concern.ts";
import type { CloudPlan, PlannedCache } from "../plan/plan.ts";

/** A plan for AWS. */
export type AwsPlan = CloudPlan & {
  readonly cloud: "aws";
  readonly cache: PlannedCache & { readonly cloud: "aws" };
};

/** What resources of a concern are made with: their parent, and the account and region. */
export type Child = ComponentChild & { readonly provider: Provider };

/** What every concern needs to know. */
export interface Scope {
  readonly plan: AwsPlan;
  readonly provider: Provider;
  readonly accountId: pulumi.Output<string>;
  /** Who deploys, as STS says it. */
  readonly callerArn: pulumi.Output<string>;
  /** Name of the profile that the AWS provider was told to use (`aws:profile`); null for the environment's credentials. */
  readonly profile: string | null;
  readonly tags: Readonly<Record<string, string>>;
  /** For what holds data: nothing removes it by accident in production. */
  readonly stateful: { readonly protect: boolean };
}

/** What functions inside of a concern hand on. */
export interface Context {
  readonly scope: Scope;
  readonly child: Child;
}

/** True of a plan for AWS. */
export function isAws(plan: CloudPlan): plan is AwsPlan {
  return plan.cloud === "aws" && plan.cache.cloud === "aws";
}

/** Who and where we are. */
export function scopeOf(plan: AwsPlan): Scope {
  const profile = new pulumi.Config("aws").get("profile") ?? null;
  const provider = concern(
    "aws",
    "account",
    (child) =>
      new Provider(
        "aws",
        {
          region: plan.region,
          ...(profile === null ? {} : { profile }),
          defaultTags: { tags: { ...plan.tags } },
        },
        child,
      ),
  );
  const caller = getCallerIdentityOutput({}, { provider });
  return {
    plan,
    provider,
    accountId: caller.accountId,
    callerArn: caller.arn,
    profile,
    tags: plan.tags,
    stateful: { protect: plan.environment === "prod" },
  };
}

/** One concern of the deployment; its children are made by the stack's own provider. */
export function part<Made>(scope: Scope, name: string, build: (child: Child) => Made): Made {
  return concern("aws", name, (child) => build({ ...child, provider: scope.provider }));
}

/** The stack's tags, and the name that consoles show. */
export function named({ plan, tags }: Scope, name: string): Record<string, string> {
  return { ...tags, Name: `${plan.prefix}-${name}` };
}
