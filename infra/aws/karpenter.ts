import * as cloudwatch from "@pulumi/aws/cloudwatch/index.js";
import * as eks from "@pulumi/aws/eks/index.js";
import * as sqs from "@pulumi/aws/sqs/index.js";
import * as pulumi from "@pulumi/pulumi";
import { namespaces } from "../cloud.ts";
import type { Cluster } from "./cluster.ts";
import { karpenterStatements } from "./karpenter-policy.ts";
import { nodePolicies } from "./nodes.ts";
import { podIdentity } from "./pod-identity.ts";
import { policyOf, roleFor } from "./policies.ts";
import { part, type Context, type Scope } from "./scope.ts";

/** Seconds that a notice is worth something: a spot node is gone two minutes after its own. */
const noticeSeconds = 300;

/** What Karpenter hears of, by its name in EventBridge: nodes that AWS takes away, repairs or stops. */
const notices = {
  "spot-interruption": ["aws.ec2", "EC2 Spot Instance Interruption Warning"],
  rebalance: ["aws.ec2", "EC2 Instance Rebalance Recommendation"],
  "state-change": ["aws.ec2", "EC2 Instance State-change Notification"],
  "reservation-end": ["aws.ec2", "EC2 Capacity Reservation Instance Interruption Warning"],
  health: ["aws.health", "AWS Health Event"],
} as const;

/** What Karpenter needs outside of the cluster: its own rights, a role for its nodes, and notices of what AWS does. */
export function makeKarpenter(scope: Scope, cluster: Cluster): readonly pulumi.Resource[] {
  if (!scope.plan.pools.some(({ provisioner }) => provisioner === "karpenter")) return [];
  return part(scope, "karpenter", (child) => {
    const context = { scope, child };
    const node = roleFor("karpenter-node", { for: "ec2", managed: nodePolicies }, context);
    const entry = new eks.AccessEntry(
      "karpenter-node",
      { clusterName: cluster.name, principalArn: node.role.arn, type: "EC2_LINUX", tags: scope.tags },
      child,
    );
    const { queue, ready } = noticeQueue(context);
    const identity = podIdentity(
      { name: "karpenter", namespace: namespaces.system },
      karpenterStatements(scope, { queueArn: queue.arn, nodeRoleArn: node.role.arn }),
      { ...context, cluster },
    );
    return [...node.ready, entry, ...ready, ...identity];
  });
}

function noticeQueue(context: Context): { readonly queue: sqs.Queue; readonly ready: readonly pulumi.Resource[] } {
  const { scope, child } = context;
  const queue = new sqs.Queue(
    "notices",
    {
      name: scope.plan.cluster.name,
      messageRetentionSeconds: noticeSeconds,
      sqsManagedSseEnabled: true,
      tags: scope.tags,
    },
    child,
  );
  const { region, prefix } = scope.plan;
  const rules = pulumi.interpolate`arn:aws:events:${region}:${scope.accountId}:rule/${prefix}-*`;
  const policy = new sqs.QueuePolicy(
    "notices",
    {
      queueUrl: queue.url,
      policy: policyOf([
        {
          Principal: { Service: "events.amazonaws.com" },
          Action: "sqs:SendMessage",
          Resource: queue.arn,
          Condition: { ArnLike: { "aws:SourceArn": rules } },
        },
        {
          Effect: "Deny",
          Principal: "*",
          Action: "sqs:*",
          Resource: queue.arn,
          Condition: { Bool: { "aws:SecureTransport": "false" } },
        },
      ]),
    },
    child,
  );
  const targets = Object.entries(notices).map(([name, [source, detail]]) => {
    const rule = new cloudwatch.EventRule(
      name,
      {
        name: `${prefix}-${name}`,
        eventPattern: JSON.stringify({ source: [source], "detail-type": [detail] }),
        tags: scope.tags,
      },
      child,
    );
    return new cloudwatch.EventTarget(name, { rule: rule.name, targetId: "karpenter", arn: queue.arn }, child);
  });
  return { queue, ready: [policy, ...targets] };
}
