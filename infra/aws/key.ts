import * as kms from "@pulumi/aws/kms/index.js";
import * as pulumi from "@pulumi/pulumi";
import { policyOf } from "./policies.ts";
import { part, type Context, type Scope } from "./scope.ts";

/** Days in which a deleted key can be had back: AWS's least and most. */
const recoveryDays = { dev: 7, prod: 30 } as const;

/**
 * One key of the stack's own: for Kubernetes secrets, the models, the managed stores, logs and alerts. The account's
 * identities use it as their own policies say; AWS's services only for what belongs to this account.
 */
export function makeKey(scope: Scope): kms.Key {
  const { plan } = scope;
  return part(scope, "key", (child) => {
    const key = new kms.Key(
      "key",
      {
        description: `Data of ${plan.prefix}`,
        enableKeyRotation: true,
        deletionWindowInDays: recoveryDays[plan.environment],
        policy: keyPolicy(scope),
        tags: scope.tags,
      },
      { ...child, ...scope.stateful },
    );
    alias(key, { scope, child });
    return key;
  });
}

/** The name that consoles show. */
function alias({ keyId }: kms.Key, { scope, child }: Context): kms.Alias {
  return new kms.Alias("key", { name: `alias/${scope.plan.prefix}`, targetKeyId: keyId }, child);
}

/** Whoever the account lets, and two services for this account's logs and alarms. */
function keyPolicy({ plan: { region }, accountId }: Scope): pulumi.Output<string> {
  const use = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"];
  return policyOf([
    {
      Sid: "Account",
      Principal: { AWS: pulumi.interpolate`arn:aws:iam::${accountId}:root` },
      Action: "kms:*",
      Resource: "*",
    },
    {
      Sid: "Logs",
      Principal: { Service: `logs.${region}.amazonaws.com` },
      Action: use,
      Resource: "*",
      Condition: {
        ArnLike: {
          "kms:EncryptionContext:aws:logs:arn": pulumi.interpolate`arn:aws:logs:${region}:${accountId}:log-group:*`,
        },
      },
    },
    {
      Sid: "Alarms",
      Principal: { Service: "cloudwatch.amazonaws.com" },
      Action: ["kms:Decrypt", "kms:GenerateDataKey*"],
      Resource: "*",
      Condition: { StringEquals: { "aws:SourceAccount": accountId } },
    },
  ]);
}
