import type * as kms from "@pulumi/aws/kms/index.js";
import * as pulumi from "@pulumi/pulumi";
import { namespaces, serviceAccountNames, type CloudOutputs } from "../cloud.ts";
import type { Cache } from "./cache.ts";
import type { Cluster } from "./cluster.ts";
import type { Observability } from "./observability.ts";
import { podIdentity } from "./pod-identity.ts";
import type { Statement } from "./policies.ts";
import { part, type Scope } from "./scope.ts";

/** What identities are made with. */
export interface IdentityContext {
  readonly cluster: Cluster;
  readonly cache: Cache;
  readonly key: kms.Key;
  readonly observability: Observability;
}

/** EKS Pod Identity knows service accounts by name: nothing is written on them. */
export const serviceAccounts: CloudOutputs["serviceAccounts"] = Object.fromEntries(
  serviceAccountNames.map((name) => [name, { annotations: {} }]),
) as CloudOutputs["serviceAccounts"];

/**
 * Who may do what: agents read models, `model-push` writes them, Prometheus sends metrics, the autoscaler changes the size
 * of node groups. The gateway needs nothing of AWS. Karpenter's rights are in karpenter.ts.
 */
export function makeIdentities(scope: Scope, made: IdentityContext): readonly pulumi.Resource[] {
  return part(scope, "identity", (child) => {
    const context = { scope, child, cluster: made.cluster };
    const { serving, system, monitoring } = namespaces;
    const { workspaceArn } = made.observability;
    return [
      ...podIdentity({ name: "agent", namespace: serving }, reading(made), context),
      ...podIdentity({ name: "model-push", namespace: serving }, [...reading(made), ...writing(made)], context),
      ...podIdentity({ name: "cluster-autoscaler", namespace: system }, sizing(scope), context),
      ...(workspaceArn === null
        ? []
        : podIdentity(
            { name: "prometheus", namespace: monitoring },
            [{ Action: "aps:RemoteWrite", Resource: workspaceArn }],
            context,
          )),
    ];
  });
}

function reading({ cache: { bucketArn }, key }: IdentityContext): Statement[] {
  return [
    { Sid: "List", Action: ["s3:ListBucket", "s3:GetBucketLocation"], Resource: bucketArn },
    { Sid: "Read", Action: "s3:GetObject", Resource: pulumi.interpolate`${bucketArn}/*` },
    { Sid: "Decrypt", Action: "kms:Decrypt", Resource: key.arn },
  ];
}

/** S3 keeps what is overwritten or deleted as an old version, and this identity cannot remove those. */
function writing({ cache: { bucketArn }, key }: IdentityContext): Statement[] {
  return [
    {
      Sid: "Write",
      Action: ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
      Resource: pulumi.interpolate`${bucketArn}/*`,
    },
    { Sid: "Encrypt", Action: "kms:GenerateDataKey", Resource: key.arn },
  ];
}

/** EKS tags the scaling groups of its node groups with the cluster's name. */
function sizing({ plan: { cluster, region }, accountId }: Scope): Statement[] {
  const look = [
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeAutoScalingInstances",
    "autoscaling:DescribeLaunchConfigurations",
    "autoscaling:DescribeScalingActivities",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:GetInstanceTypesFromInstanceRequirements",
  ];
  return [
    { Sid: "Look", Action: look, Resource: "*", Condition: { StringEquals: { "aws:RequestedRegion": region } } },
    {
      Sid: "LookAtNodeGroups",
      Action: "eks:DescribeNodegroup",
      Resource: pulumi.interpolate`arn:aws:eks:${region}:${accountId}:nodegroup/${cluster.name}/*`,
    },
    {
      Sid: "Resize",
      Action: ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"],
      Resource: "*",
      Condition: { StringEquals: { [`aws:ResourceTag/k8s.io/cluster-autoscaler/${cluster.name}`]: "owned" } },
    },
  ];
}
