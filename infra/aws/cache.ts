import type * as kms from "@pulumi/aws/kms/index.js";
import * as s3 from "@pulumi/aws/s3/index.js";
import * as pulumi from "@pulumi/pulumi";
import { policyOf } from "./policies.ts";
import { part, type Context, type Scope } from "./scope.ts";

/** Where models are kept for good. */
export interface Cache {
  readonly bucketArn: pulumi.Output<string>;
  /** Without these it is not what the plan says. */
  readonly ready: readonly pulumi.Resource[];
}

/** An upload that nobody finished costs as much as one that is there. */
const unfinishedDays = 7;

/** The bucket. Nobody reaches it without an identity of the account, and nobody without TLS. */
export function makeCache(scope: Scope, key: kms.Key): Cache {
  const { plan, tags, stateful } = scope;
  return part(scope, "cache", (child) => {
    const bucket = new s3.Bucket(
      "models",
      // In development `pulumi destroy` takes the models with it: they can be pushed again.
      { bucket: plan.cache.bucket, forceDestroy: plan.environment === "dev", tags },
      { ...child, ...stateful },
    );
    const context = { scope, child };
    return { bucketArn: bucket.arn, ready: [bucket, ...closed(bucket, context), ...kept(bucket, key, context)] };
  });
}

/** Nobody outside, no lists of rights beside the policies, no plain text on the way. */
function closed(bucket: s3.Bucket, { child }: Context): readonly pulumi.Resource[] {
  const block = new s3.BucketPublicAccessBlock(
    "models",
    {
      bucket: bucket.id,
      blockPublicAcls: true,
      blockPublicPolicy: true,
      ignorePublicAcls: true,
      restrictPublicBuckets: true,
    },
    child,
  );
  const everything = [bucket.arn, pulumi.interpolate`${bucket.arn}/*`];
  const deny = { Effect: "Deny", Principal: "*", Action: "s3:*", Resource: everything } as const;
  const policy = new s3.BucketPolicy(
    "models",
    {
      bucket: bucket.id,
      policy: policyOf([
        { ...deny, Sid: "TlsOnly", Condition: { Bool: { "aws:SecureTransport": "false" } } },
        { ...deny, Sid: "NoOldTls", Condition: { NumericLessThan: { "s3:TlsVersion": "1.2" } } },
      ]),
    },
    // S3 takes one change of a bucket's access at a time.
    { ...child, dependsOn: block },
  );
  const owner = new s3.BucketOwnershipControls(
    "models",
    { bucket: bucket.id, rule: { objectOwnership: "BucketOwnerEnforced" } },
    { ...child, dependsOn: policy },
  );
  return [block, policy, owner];
}

/** Encrypted; what was overwritten or deleted can be had back for as long as the plan says, and then costs nothing. */
function kept(bucket: s3.Bucket, key: kms.Key, { scope, child }: Context): readonly pulumi.Resource[] {
  const encryption = new s3.BucketServerSideEncryptionConfiguration(
    "models",
    {
      bucket: bucket.id,
      rules: [
        {
          applyServerSideEncryptionByDefault: { sseAlgorithm: "aws:kms", kmsMasterKeyId: key.arn },
          // One request to KMS for many objects.
          bucketKeyEnabled: true,
        },
      ],
    },
    child,
  );
  const versions = new s3.BucketVersioning(
    "models",
    { bucket: bucket.id, versioningConfiguration: { status: "Enabled" } },
    child,
  );
  const everything = { status: "Enabled", filter: { prefix: "" } };
  const lifecycle = new s3.BucketLifecycleConfiguration(
    "models",
    {
      bucket: bucket.id,
      rules: [
        {
          ...everything,
          id: "remove-old-versions",
          noncurrentVersionExpiration: { noncurrentDays: scope.plan.cache.keepOldVersionsDays },
          expiration: { expiredObjectDeleteMarker: true },
        },
        {
          ...everything,
          id: "remove-unfinished-uploads",
          abortIncompleteMultipartUpload: { daysAfterInitiation: unfinishedDays },
        },
      ],
    },
    { ...child, dependsOn: versions },
  );
  return [encryption, versions, lifecycle];
}
