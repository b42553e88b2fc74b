import { findingOn, levels, ofType, type PlannedResource, type Rule } from "../rule.ts";
import { at, list, mustBe, recordOf, said } from "../values.ts";

const aks = "azure-native:containerservice:ManagedCluster";
const eks = "aws:eks/cluster:Cluster";
const diagnostics = "azure-native:monitor:DiagnosticSetting";

const eksLogs = ["api", "audit", "authenticator", "controllerManager", "scheduler"];
/** Who changed what, and who came in. */
const aksLogs = ["kube-audit-admin", "guard"];

const budgets = ["azure-native:consumption:Budget", "azure-native:costmanagement:Budget", "aws:budgets/budget:Budget"];

const autoscalers = ["kubernetes:autoscaling/v2:HorizontalPodAutoscaler", "kubernetes:keda.sh/v1alpha1:ScaledObject"];

/** What would be a promise to pay for months or years. */
const purchases = [
  "aws:ec2/capacityBlockReservation:CapacityBlockReservation",
  "aws:ec2/capacityReservation:CapacityReservation",
  "aws:savingsplans/savingsPlan:SavingsPlan",
  "aws:rds/reservedInstance:ReservedInstance",
  "aws:elasticache/reservedCacheNode:ReservedCacheNode",
  "aws:bedrock/provisionedModelThroughput:ProvisionedModelThroughput",
  "azure-native:compute:CapacityReservation",
  "azure-native:compute:CapacityReservationGroup",
];

/** What most of the bill is: these have tags even where somebody forgot to write any. */
const mustHaveTags = new Set([
  aks,
  eks,
  "azure-native:resources:ResourceGroup",
  "azure-native:containerservice:AgentPool",
  "azure-native:storage:StorageAccount",
  "azure-native:dbforpostgresql:Server",
  "azure-native:redisenterprise:RedisEnterprise",
  "azure-native:network:NatGateway",
  "azure-native:network:PublicIPAddress",
  "aws:eks/nodeGroup:NodeGroup",
  "aws:ec2/launchTemplate:LaunchTemplate",
  "aws:ec2/natGateway:NatGateway",
  "aws:ec2/eip:Eip",
  "aws:ec2/vpcEndpoint:VpcEndpoint",
  "aws:s3/bucket:Bucket",
  "aws:rds/instance:Instance",
  "aws:elasticache/replicationGroup:ReplicationGroup",
]);

/** The cluster, its logs, and what watches over the bill. */
export const clusterRules: readonly Rule[] = [
  {
    id: "control-plane-logs",
    title: "The control plane's logs are kept, and not for ever",
    levels: levels.strictInProd,
    severity: "medium",
    reason: "Without them nobody can say who changed what; logs without an end are paid for without one.",
    remedy: `EKS: ${eksLogs.join(", ")}, with a log group and retention. AKS: a diagnostic setting with ${aksLogs.join(" and ")}.`,
    judges: "stack",
    judge: (resources) => [
      ...ofType(resources, eks).flatMap((each) => {
        const missing = eksLogs.filter((log) => !list(each.properties, "enabledClusterLogTypes").includes(log));
        return [
          ...missing.map((log) => findingOn(each, `its log ${log} is off`)),
          ...(keepsLogsOf(resources, each) ? [] : [findingOn(each, "no log group with a retention is made for it")]),
        ];
      }),
      ...ofType(resources, aks).flatMap((each) => {
        const settings = ofType(resources, diagnostics).filter(({ dependencies }) => dependencies.includes(each.urn));
        const on = new Set(
          settings
            .flatMap(({ properties }) => list(properties, "logs"))
            .filter((log) => at(log, "enabled") === true)
            .map((log) => at(log, "category")),
        );
        return aksLogs.filter((log) => !on.has(log)).map((log) => findingOn(each, `its log ${log} goes nowhere`));
      }),
      ...ofType(resources, "aws:cloudwatch/logGroup:LogGroup")
        .filter(({ properties }) => at(properties, "retentionInDays") === undefined)
        .map((each) => findingOn(each, "it keeps logs for ever")),
    ],
  },
  {
    id: "budget-alerts",
    title: "Somebody is told of what was spent, and of what will be",
    levels: levels.strictInProd,
    severity: "medium",
    reason: "The pools' maxima bound an hour; nobody looks at thirty days of hours without being told.",
    remedy: "A budget with an actual and a forecasted alert.",
    judges: "stack",
    judge(resources) {
      const alerts = ofType(resources, ...budgets).flatMap(({ properties }) => {
        const notifications = at(properties, "notifications");
        const each = Array.isArray(notifications) ? notifications : Object.values(recordOf(notifications));
        // Azure says it in the one, AWS in the other.
        return each.map((one) => `${said(at(one, "thresholdType"))} ${said(at(one, "notificationType"))}`);
      });
      return ["actual", "forecasted"]
        .filter((kind) => !alerts.some((alert) => alert.toLowerCase().includes(kind)))
        .map((kind) => ({ on: "budget", problem: `there is no ${kind} alert` }));
    },
  },
  {
    id: "one-autoscaler",
    title: "Nothing is scaled by two",
    levels: levels.always,
    severity: "medium",
    reason: "Two autoscalers of one workload undo each other's work every few seconds.",
    remedy: "A ScaledObject makes its own HorizontalPodAutoscaler: leave the other one out.",
    judges: "stack",
    judge(resources) {
      const scalers = ofType(resources, ...autoscalers);
      return scalers
        .filter((each, index) => scalers.findIndex((other) => targetOf(other) === targetOf(each)) < index)
        .map((each) => findingOn(each, `${targetOf(each)} has an autoscaler already`));
    },
  },
  {
    id: "no-purchases",
    title: "Nothing is bought for months or years",
    levels: levels.always,
    severity: "critical",
    reason: "A reservation cannot be destroyed: it is paid to its end, whatever `pulumi destroy` says.",
    remedy: "Buy it by hand, and name it in the pool's `reservation`: Penstock uses what was bought.",
    judges: "resource",
    types: purchases,
    judge: ({ type }) => [`a ${type.split(":").at(-1) ?? type} is a promise to pay`],
  },
  {
    id: "standard-support",
    title: "Kubernetes is in its standard support",
    levels: levels.said,
    severity: "low",
    reason: "Extended support costs 0.60 USD an hour in place of 0.10, and is switched on by waiting.",
    remedy: "upgradePolicy STANDARD, and upgrades in time.",
    judges: "resource",
    types: [eks, aks],
    judge: ({ type, properties }) =>
      type === eks
        ? mustBe(properties, "upgradePolicy.supportType", "STANDARD")
        : mustBe(properties, "supportPlan", undefined, "KubernetesOfficial"),
  },
  {
    id: "resource-tags",
    title: "Every resource that can carry the stack's tags has them",
    levels: levels.always,
    severity: "medium",
    reason: "The bill is divided by tags; what has none is nobody's.",
    remedy: "Hand the plan's tags on to the resource.",
    judges: "stack",
    judge: (resources, plan) =>
      resources
        .filter(({ type, properties }) => mustHaveTags.has(type) || (isOfCloud(type) && hasValue(properties["tags"])))
        .flatMap((each) =>
          Object.entries(plan.tags)
            .filter(([tag, value]) => tagOf(each, tag) !== value)
            .map(([tag]) => findingOn(each, `its tag ${tag} is ${said(tagOf(each, tag))}`)),
        ),
  },
];

/** EKS writes to a group whose name follows from the cluster's, and makes one that keeps logs for ever where there is none. */
function keepsLogsOf(resources: readonly PlannedResource[], { properties }: PlannedResource): boolean {
  const name = `/aws/eks/${String(at(properties, "name"))}/cluster`;
  return ofType(resources, "aws:cloudwatch/logGroup:LogGroup").some((group) => at(group.properties, "name") === name);
}

function hasValue(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function isOfCloud(type: string): boolean {
  return type.startsWith("azure-native:") || type.startsWith("aws:");
}

/** What an autoscaler scales. */
function targetOf({ properties }: PlannedResource): string {
  const path = ["metadata.namespace", "spec.scaleTargetRef.kind", "spec.scaleTargetRef.name"];
  return path.map((key) => String(at(properties, key))).join("/");
}

function tagOf({ properties }: PlannedResource, tag: string): unknown {
  return recordOf(properties["tags"])[tag];
}
