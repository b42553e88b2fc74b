import * as cloudwatch from "@pulumi/aws/cloudwatch/index.js";
import type * as kms from "@pulumi/aws/kms/index.js";
import type { Context } from "./scope.ts";

/** Days that CloudWatch can keep logs for, up to two years (AWS API reference, PutRetentionPolicy). */
const retentions = [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731];

/** The shortest time that CloudWatch offers and that is not below what was asked for. */
export function retentionOf(days: number): number {
  return retentions.find((offered) => offered >= days) ?? 731;
}

/** A group of logs with the stack's retention. AWS's services would make it themselves, and keep it for ever. */
export function logGroup(
  name: string,
  { path, key }: { readonly path: string; readonly key: kms.Key },
  { scope, child }: Context,
): cloudwatch.LogGroup {
  return new cloudwatch.LogGroup(
    name,
    {
      name: path,
      retentionInDays: retentionOf(scope.plan.observability.retentionDays),
      kmsKeyId: key.arn,
      tags: scope.tags,
    },
    child,
  );
}
