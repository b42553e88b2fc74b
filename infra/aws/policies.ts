import * as iam from "@pulumi/aws/iam/index.js";
import * as pulumi from "@pulumi/pulumi";
import type { Context } from "./scope.ts";

/** A statement of an IAM policy. */
export interface Statement {
  readonly Sid?: string;
  readonly Effect?: "Allow" | "Deny";
  readonly Principal?: pulumi.Input<string> | Readonly<Record<string, pulumi.Input<string | readonly string[]>>>;
  readonly Action: string | readonly string[];
  readonly Resource?: pulumi.Input<string> | readonly pulumi.Input<string>[];
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, pulumi.Input<string | readonly string[]>>>>>;
}

/** A policy as IAM takes it; a statement that does not say otherwise allows. */
export function policyOf(statements: readonly Statement[]): pulumi.Output<string> {
  return pulumi.jsonStringify({
    Version: "2012-10-17",
    Statement: statements.map((statement) => ({ Effect: "Allow", ...statement })),
  });
}

/** Services that take on a role. Pods do it through EKS Pod Identity, which says in session tags whose pod it is. */
const trusted = {
  eks: "eks.amazonaws.com",
  ec2: "ec2.amazonaws.com",
  pods: "pods.eks.amazonaws.com",
  flowLogs: "vpc-flow-logs.amazonaws.com",
} as const;

/** A role for one of AWS's services: who takes it on, AWS's own policies that it has, and statements of ours. */
export interface RoleOptions {
  readonly for: keyof typeof trusted;
  /** Names of AWS's managed policies, with their path. */
  readonly managed?: readonly string[];
  readonly statements?: readonly Statement[];
}

/** A role, and all that must be there before somebody takes it on. */
export interface MadeRole {
  readonly role: iam.Role;
  readonly ready: readonly pulumi.Resource[];
}

/** A role named after the stack. It does nothing but what is listed here. */
export function roleFor(name: string, options: RoleOptions, { scope, child }: Context): MadeRole {
  const { managed = [], statements = [] } = options;
  const role = new iam.Role(
    `${name}-role`,
    {
      name: `${scope.plan.prefix}-${name}`,
      assumeRolePolicy: policyOf([
        {
          Principal: { Service: trusted[options.for] },
          Action: options.for === "pods" ? ["sts:AssumeRole", "sts:TagSession"] : "sts:AssumeRole",
        },
      ]),
      tags: scope.tags,
    },
    child,
  );
  const attached = managed.map(
    (policy) =>
      new iam.RolePolicyAttachment(
        `${name}-${policy.split("/").at(-1)}`,
        { role: role.name, policyArn: `arn:aws:iam::aws:policy/${policy}` },
        child,
      ),
  );
  const own =
    statements.length === 0
      ? []
      : [new iam.RolePolicy(`${name}-policy`, { role: role.name, policy: policyOf(statements) }, child)];
  return { role, ready: [role, ...attached, ...own] };
}
