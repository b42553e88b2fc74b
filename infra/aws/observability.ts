import * as amp from "@pulumi/aws/amp/index.js";
import * as cloudwatch from "@pulumi/aws/cloudwatch/index.js";
import * as ec2 from "@pulumi/aws/ec2/index.js";
import type * as kms from "@pulumi/aws/kms/index.js";
import * as sns from "@pulumi/aws/sns/index.js";
import * as pulumi from "@pulumi/pulumi";
import { logGroup } from "./logs.ts";
import type { Network } from "./network.ts";
import { roleFor } from "./policies.ts";
import type { Postgres } from "./postgres.ts";
import { named, part, type Context, type Scope } from "./scope.ts";

/** PostgreSQL stops writing when its disk is full. */
const freeDiskShare = 0.2;
const gib = 2 ** 30;

export interface Observability {
  /** The managed Prometheus; null where metrics stay in the cluster. */
  readonly workspaceArn: pulumi.Output<string> | null;
  /** Where the Prometheus in the cluster sends what it measured. */
  readonly metricsWriteUrl: pulumi.Output<string> | null;
  readonly ready: readonly pulumi.Resource[];
}

interface Made {
  readonly network: Network;
  readonly postgres: Postgres | null;
  readonly key: kms.Key;
}

/** Alarms of managed stores; refused connections in production; with `managed`, AWS's Prometheus. */
export function makeObservability(scope: Scope, made: Made): Observability {
  return part(scope, "observability", (child) => {
    const context = { scope, child };
    const watched = [
      ...(made.postgres === null ? [] : diskAlarm(made.postgres, made.key, context)),
      ...(scope.plan.environment === "prod" ? refusedConnections(made, context) : []),
    ];
    if (scope.plan.observability.mode === "in-cluster") {
      return { workspaceArn: null, metricsWriteUrl: null, ready: watched };
    }
    const workspace = new amp.Workspace("metrics", { alias: scope.plan.prefix, tags: named(scope, "metrics") }, child);
    const retention = new amp.WorkspaceConfiguration(
      "metrics",
      { workspaceId: workspace.id, retentionPeriodInDays: scope.plan.observability.retentionDays },
      child,
    );
    return {
      workspaceArn: workspace.arn,
      metricsWriteUrl: pulumi.interpolate`${workspace.prometheusEndpoint}api/v1/remote_write`,
      ready: [...watched, retention],
    };
  });
}

function diskAlarm({ identifier }: Postgres, key: kms.Key, { scope, child }: Context): readonly pulumi.Resource[] {
  const { observability, postgres, prefix } = scope.plan;
  const { alertEmails } = observability;
  if (alertEmails.length === 0) return [];
  const people = new sns.Topic("people", { name: `${prefix}-people`, kmsMasterKeyId: key.id, tags: scope.tags }, child);
  const told = alertEmails.map(
    (endpoint) => new sns.TopicSubscription(endpoint, { topic: people.arn, protocol: "email", endpoint }, child),
  );
  const alarm = new cloudwatch.MetricAlarm(
    "postgres-disk",
    {
      name: `${prefix}-postgres-disk`,
      alarmDescription: "PostgreSQL's disk is almost full: raise postgres.storageGiB in the stack.",
      namespace: "AWS/RDS",
      metricName: "FreeStorageSpace",
      dimensions: { DBInstanceIdentifier: identifier },
      statistic: "Average",
      comparisonOperator: "LessThanThreshold",
      threshold: postgres.storageGiB * gib * freeDiskShare,
      period: 300,
      evaluationPeriods: 3,
      alarmActions: [people.arn],
      tags: scope.tags,
    },
    child,
  );
  return [...told, alarm];
}

/** Who tried to reach what in the network, and may not. */
function refusedConnections({ network, key }: Made, context: Context): readonly pulumi.Resource[] {
  const { scope, child } = context;
  const logs = logGroup("network", { path: `/aws/vpc/${scope.plan.prefix}`, key }, context);
  const statements = [
    {
      Action: ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogGroups", "logs:DescribeLogStreams"],
      Resource: [logs.arn, pulumi.interpolate`${logs.arn}:*`],
    },
  ];
  const { role, ready } = roleFor("flow-logs", { for: "flowLogs", statements }, context);
  const flow = new ec2.FlowLog(
    "network",
    {
      vpcId: network.vpcId,
      trafficType: "REJECT",
      logDestination: logs.arn,
      iamRoleArn: role.arn,
      tags: named(scope, "network"),
    },
    { ...child, dependsOn: [...ready] },
  );
  return [flow];
}
