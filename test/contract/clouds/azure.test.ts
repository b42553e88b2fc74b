import { deployAzure } from "../../../infra/azure/index.ts";
import { roles } from "../../../infra/azure/roles.ts";
import type { CloudPlan } from "../../../infra/plan/plan.ts";
import { planOf } from "../../support/plans.ts";
import { azureMocks } from "../../support/pulumi/azure.ts";
import type { Registered } from "../../support/pulumi/mocks.ts";
import { cloudContract, type ModelStore, type NodeGroup, type StoreGrant } from "./cloud.contract.ts";

cloudContract({
  name: "azure",
  deploy: deployAzure,
  planOf: (environment) => planOf(`azure-${environment}`),
  mocks: azureMocks,
  makes: () => true,
  nodeGroups: (resources) => of(resources, "containerservice:AgentPool").map(nodeGroup),
  store,
  grants: storeGrants,
  stateful: (resources) =>
    [
      "resources:ResourceGroup",
      "containerservice:ManagedCluster",
      "storage:StorageAccount",
      "storage:BlobContainer",
      "redisenterprise:RedisEnterprise",
      "redisenterprise:Database",
      "dbforpostgresql:Server",
      "dbforpostgresql:Database",
    ].flatMap((type) => of(resources, type)),
  exposed,
  budget: (resources) => {
    const [budget] = of(resources, "consumption:Budget");
    const notifications = Object.values(recordOf(budget?.inputs["notifications"])).map(recordOf);
    return {
      monthlyUsd: Number(budget?.inputs["amount"]),
      alerts: notifications.map(
        ({ thresholdType, threshold }) => `${thresholdType === "Actual" ? "actual" : "forecast"} ${String(threshold)}`,
      ),
    };
  },
});

function of(resources: readonly Registered[], type: string): Registered[] {
  return resources.filter((resource) => resource.type === `azure-native:${type}`);
}

function recordOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

function stringsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

function nodeGroup(resource: Registered): NodeGroup {
  const { inputs, name } = resource;
  const minutes = recordOf(inputs["upgradeSettings"])["drainTimeoutInMinutes"];
  return {
    pool: name.replace(/^pool-/, ""),
    minNodes: Number(inputs["minCount"]),
    maxNodes: Number(inputs["maxCount"]),
    initialNodes: Number(inputs["count"]),
    taints: stringsOf(inputs["nodeTaints"]),
    // Labels are texts in Azure's schema.
    labels: recordOf(inputs["nodeLabels"]) as Record<string, string>,
    zones: stringsOf(inputs["availabilityZones"]),
    spot: inputs["scaleSetPriority"] === "Spot",
    drainSeconds: typeof minutes === "number" ? minutes * 60 : null,
    countInput: "count",
    resource,
  };
}

function store(resources: readonly Registered[]): ModelStore {
  const [account] = of(resources, "storage:StorageAccount");
  const [container] = of(resources, "storage:BlobContainer");
  const [blobs] = of(resources, "storage:BlobServiceProperties");
  const [policy] = of(resources, "storage:ManagementPolicy");
  const right = {
    allowBlobPublicAccess: false,
    allowSharedKeyAccess: false,
    allowCrossTenantReplication: false,
    isLocalUserEnabled: false,
    enableHttpsTrafficOnly: true,
    minimumTlsVersion: "TLS1_2",
  };
  const wrong = Object.entries(right).filter(([key, value]) => account?.inputs[key] !== value);
  const rules = recordOf(account?.inputs["networkRuleSet"]);
  const [rule] = rulesOf(policy);
  return {
    openings: [
      ...wrong.map(([key]) => key),
      ...(rules["defaultAction"] === "Deny" ? [] : ["networkRuleSet"]),
      ...(container?.inputs["publicAccess"] === "None" ? [] : ["publicAccess of the container"]),
    ],
    versioned: blobs?.inputs["isVersioningEnabled"] === true,
    oldVersionsDays: oldVersionsDays(rule),
  };
}

function rulesOf(policy: Registered | undefined): unknown[] {
  const { rules } = recordOf(policy?.inputs["policy"]);
  return Array.isArray(rules) ? rules : [];
}

function oldVersionsDays(rule: unknown): number | null {
  const { actions } = recordOf(recordOf(rule)["definition"]);
  const { daysAfterCreationGreaterThan: days } = recordOf(recordOf(recordOf(actions)["version"])["delete"]);
  return typeof days === "number" ? days : null;
}

/** Roles that reach blobs, wherever they are given. */
function storeGrants(resources: readonly Registered[]): StoreGrant[] {
  const writing = new Set<string>([roles.blobContributor, roles.contributor]);
  return of(resources, "authorization:RoleAssignment").flatMap(({ inputs }) => {
    const role = String(inputs["roleDefinitionId"]).split("/").at(-1) ?? "";
    if (role !== roles.blobReader && !writing.has(role)) return [];
    const principal = String(inputs["principalId"]);
    return [
      {
        who: principal.replace(/^principal-of-penstock-(dev|prod)-/, ""),
        writes: writing.has(role),
        narrow: /\/BlobContainer\/[^/]+$/.test(String(inputs["scope"])),
      },
    ];
  });
}

function exposed(resources: readonly Registered[], plan: CloudPlan): string[] {
  const open: string[] = [];
  for (const { name, inputs } of of(resources, "containerservice:ManagedCluster")) {
    const api = recordOf(inputs["apiServerAccessProfile"]);
    const ranges = stringsOf(api["authorizedIPRanges"]);
    const wanted = plan.network.privateCluster ? api["enablePrivateCluster"] === true : ranges.length > 0;
    if (!wanted || ranges.includes("0.0.0.0/0") || inputs["disableLocalAccounts"] !== true) open.push(name);
  }
  for (const { name, inputs } of of(resources, "redisenterprise:RedisEnterprise")) {
    if (inputs["publicNetworkAccess"] !== "Disabled") open.push(name);
  }
  for (const { name, inputs } of of(resources, "dbforpostgresql:Server")) {
    if (recordOf(inputs["network"])["delegatedSubnetResourceId"] === undefined) open.push(name);
  }
  for (const { name, inputs } of of(resources, "storage:StorageAccount")) {
    if (plan.environment === "prod" && inputs["publicNetworkAccess"] !== "Disabled") open.push(name);
  }
  return open;
}
