import * as pulumi from "@pulumi/pulumi";
import { describe, expect, test } from "vitest";
import { unattended } from "../../infra/azure/cluster.ts";
import { deployAzure } from "../../infra/azure/index.ts";
import { poolNames } from "../../infra/azure/pools.ts";
import type { CloudOutputs } from "../../infra/cloud.ts";
import { alertGroups } from "../../infra/lib/alerts.ts";
import type { CloudPlan, PlannedPool } from "../../infra/plan/plan.ts";
import { planOf } from "../support/plans.ts";
import { azureKubeconfig, azureMocks } from "../support/pulumi/azure.ts";
import { underMocks, valueOf, type Registered } from "../support/pulumi/mocks.ts";

interface Deployed {
  readonly outputs: CloudOutputs;
  readonly of: (type: string) => Registered[];
  /** The only one of a type. */
  readonly only: (type: string) => Readonly<Record<string, unknown>>;
}

async function deployed(plan: CloudPlan): Promise<Deployed> {
  const { resources, result } = await underMocks({ program: () => deployAzure(plan), ...azureMocks });
  const of = (type: string): Registered[] => resources.filter((each) => each.type === `azure-native:${type}`);
  return {
    outputs: result,
    of,
    only: (type) => {
      const [first, ...more] = of(type);
      expect(more).toEqual([]);
      return first?.inputs ?? {};
    },
  };
}

const plans = { dev: await planOf("azure-dev"), prod: await planOf("azure-prod") };

/** Deployments of the stacks that come with Penstock: tests that change nothing share them. */
const samples = new Map<string, Promise<Deployed>>();

function sample(environment: "dev" | "prod"): Promise<Deployed> {
  const made = samples.get(environment) ?? deployed(plans[environment]);
  samples.set(environment, made);
  return made;
}

/** A pool like those of production, and alone. */
function samplePool(changes: Partial<PlannedPool>): PlannedPool {
  const [pool] = plans.prod.pools;
  if (pool === undefined) throw new Error("The production stack has no pool.");
  const onDemand = { capacity: "on-demand", group: "h100", size: "Standard_ND96isr_H100_v5" } as const;
  return { ...pool, ...onDemand, node: { ...pool.node, osDisk: "managed" }, ...changes };
}

/** Production with that pool alone, whose fleet takes 15 minutes to drain. */
function withPool(changes: Partial<PlannedPool>): CloudPlan {
  const [fleet] = plans.prod.fleets;
  const fleets = fleet === undefined ? [] : [{ ...fleet, pool: "h100", drainSeconds: 900 }];
  return { ...plans.prod, pools: [samplePool(changes)], fleets };
}

describe("agent pools", () => {
  test("a pool on demand: driver, one node at a time, system on a managed disk so that the NVMe stays for models", async () => {
    const { only } = await deployed(withPool({}));
    expect(only("containerservice:AgentPool")).toMatchObject({
      mode: "User",
      vmSize: "Standard_ND96isr_H100_v5",
      gpuProfile: { driver: "Install" },
      enableAutoScaling: true,
      osDiskType: "Managed",
      osDiskSizeGB: samplePool({}).node.osDiskGiB,
      nodeTaints: ["nvidia.com/gpu=present:NoSchedule"],
      availabilityZones: ["1", "2", "3"],
      securityProfile: { sshAccess: "Disabled" },
      // 900 s of the fleet, and 5 minutes.
      upgradeSettings: { maxUnavailable: "1", maxSurge: "0", drainTimeoutInMinutes: 20 },
      orchestratorVersion: plans.prod.cluster.kubernetesVersion,
    });
    expect(only("containerservice:AgentPool")).not.toHaveProperty("scaleSetPriority");
  });

  test("a spot pool: any price, deleted when taken, marked as AKS marks it; nothing that spot pools refuse", async () => {
    const { only } = await deployed(withPool({ capacity: "spot" }));
    const pool = only("containerservice:AgentPool");
    expect(pool).toMatchObject({
      scaleSetPriority: "Spot",
      scaleSetEvictionPolicy: "Delete",
      spotMaxPrice: -1,
      type: "VirtualMachineScaleSets",
      upgradeSettings: { drainTimeoutInMinutes: 20 },
    });
    expect(pool["nodeTaints"]).toContain("kubernetes.azure.com/scalesetpriority=spot:NoSchedule");
    expect(pool["nodeLabels"]).toMatchObject({ "kubernetes.azure.com/scalesetpriority": "spot" });
    expect(Object.keys(pool["upgradeSettings"] ?? {})).toEqual(["drainTimeoutInMinutes"]);
  });

  test("reserved capacity: the pool names the group, and the cluster may use it before the pool is made", async () => {
    const reservationId = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/capacityReservationGroups/g";
    const { of, only } = await deployed(withPool({ capacity: "reserved", reservationId }));
    expect(only("containerservice:AgentPool")).toMatchObject({ capacityReservationGroupID: reservationId });
    const grant = of("authorization:RoleAssignment").find(({ name }) => name.startsWith("reserved-"));
    expect(grant?.inputs).toMatchObject({ scope: reservationId, principalId: "principal-of-penstock-prod-cluster" });
    const [pool] = of("containerservice:AgentPool");
    expect(pool?.dependencies.some((urn) => urn.endsWith(`::${grant?.name}`))).toBe(true);
  });

  test("nodes that must be close: one zone and a placement group", async () => {
    const { only } = await deployed(withPool({ placementGroup: true }));
    expect(only("containerservice:AgentPool")).toMatchObject({
      availabilityZones: ["1"],
      proximityPlacementGroupID: expect.stringContaining("ProximityPlacementGroup"),
    });
    expect(only("compute:ProximityPlacementGroup")).toMatchObject({ zones: ["1"] });
  });

  test("a pool with an ephemeral system disk, where the plan says that there is room", async () => {
    const { node } = samplePool({});
    const { only } = await deployed(withPool({ node: { ...node, osDisk: "ephemeral" } }));
    expect(only("containerservice:AgentPool")).toMatchObject({ osDiskType: "Ephemeral" });
  });

  test("names are what AKS takes, and depend on the pool alone", () => {
    const pools = ["a", "b", "c"].map((name) => samplePool({ name, group: "llama-70b" }));
    const names = poolNames({ pools });
    expect([...names.values()].every((name) => /^[a-z][a-z0-9]{0,11}$/.test(name))).toBe(true);
    expect(new Set(names.values()).size).toBe(3);
    expect(poolNames({ pools: pools.toReversed().slice(0, 1) }).get("c")).toBe(names.get("c"));
  });

  test("two pools that AKS would call the same are refused, with both names", () => {
    // Found by trying: their hashes are the same.
    const pools = ["pool-36694", "pool-46434"].map((name) => samplePool({ name, group: "g" }));
    expect(() => poolNames({ pools })).toThrow("Pools pool-36694 and pool-46434 both become");
  });

  test("the autoscaler's priorities can name each pool's scale set", async () => {
    const { outputs, of } = await sample("prod");
    for (const { name } of plans.prod.pools) {
      const pattern = await valueOf(pulumi.output(outputs.nodeGroupPatterns[name] ?? ""));
      const pool = of("containerservice:AgentPool").find((each) => each.name === `pool-${name}`);
      expect(pattern).not.toBe("");
      expect(`aks-${String(pool?.inputs["agentPoolName"])}-12345678-vmss`).toMatch(new RegExp(pattern));
    }
  });
});

describe("the cluster", () => {
  const admin = "11111111-1111-4111-8111-111111111111";
  const withAdmins = { ...plans.prod, cluster: { ...plans.prod.cluster, admins: [admin] } };

  test("private: no public API, and no password anywhere", async () => {
    const { only } = await deployed(withAdmins);
    expect(only("containerservice:ManagedCluster")).toMatchObject({
      apiServerAccessProfile: { enablePrivateCluster: true, privateDNSZone: "system", disableRunCommand: true },
      disableLocalAccounts: true,
      aadProfile: {
        managed: true,
        enableAzureRBAC: true,
        adminGroupObjectIDs: [admin],
      },
      sku: { name: "Base", tier: "Standard" },
      networkProfile: { networkPluginMode: "overlay", outboundType: "userAssignedNATGateway" },
      oidcIssuerProfile: { enabled: true },
      securityProfile: { workloadIdentity: { enabled: true } },
      workloadAutoScalerProfile: { keda: { enabled: true } },
      // The longest drain, 5 minutes, and another one.
      autoScalerProfile: { expander: "priority", maxGracefulTerminationSec: "360", skipNodesWithLocalStorage: "false" },
    });
  });

  test("public: for the named ranges and for its own nodes", async () => {
    const { only } = await sample("dev");
    expect(only("containerservice:ManagedCluster")["apiServerAccessProfile"]).toMatchObject({
      enablePrivateCluster: false,
      authorizedIPRanges: [...plans.dev.network.apiAllowedAddresses, "203.0.113.7/32"],
    });
  });

  test("KEDA from a chart leaves the cluster's own off", async () => {
    const { only } = await deployed({ ...plans.dev, addOns: [] });
    expect(only("containerservice:ManagedCluster")["workloadAutoScalerProfile"]).toEqual({ keda: { enabled: false } });
  });

  test("without groups of admins, whoever deploys is one; with them, they are, and may fill the cache", async () => {
    const grants = async (plan: CloudPlan): Promise<string[]> =>
      (await deployed(plan)).of("authorization:RoleAssignment").map(({ name }) => name);
    expect(await grants(plans.prod)).toEqual(expect.arrayContaining(["deployer-is-admin", "deployer-writes"]));
    const named = await grants(withAdmins);
    expect(named).not.toContain("deployer-is-admin");
    expect(named).toEqual(expect.arrayContaining([`admins-write-${admin}`, `grafana-admins-${admin}`]));
  });

  test("what the autoscaler and Azure change by themselves is left to them", async () => {
    const { of } = await sample("prod");
    expect(of("containerservice:ManagedCluster")[0]?.ignoreChanges).toEqual(["agentPoolProfiles"]);
    expect(of("consumption:Budget")[0]?.ignoreChanges).toEqual(["timePeriod"]);
  });

  test("the kubeconfig logs in where nobody can type a code", async () => {
    const { outputs } = await sample("prod");
    const kubeconfig = await valueOf(outputs.kubeconfig);
    expect(kubeconfig).toBe(azureKubeconfig.replace("devicecode", "azurecli"));
    const other = azureKubeconfig.replace("devicecode", "workloadidentity");
    expect(unattended(Buffer.from(other).toString("base64"))).toBe(other);
  });

  test("a private registry: nodes may pull, by name and by network", async () => {
    const plan = plans.prod;
    const registry = "/subscriptions/s/resourceGroups/r/providers/Microsoft.ContainerRegistry/registries/images";
    const { of } = await deployed({
      ...plan,
      cluster: { ...plan.cluster, registry },
      network: { ...plan.network, endpoints: "full" },
    });
    const pull = of("authorization:RoleAssignment").find(({ name }) => name === "nodes-pull");
    expect(pull?.inputs).toMatchObject({ scope: registry, principalId: "principal-of-penstock-prod-kubelet" });
    expect(of("network:PrivateEndpoint").map(({ name }) => name)).toContain("registry-endpoint");
  });
});

describe("the network", () => {
  test("parts of the range that do not overlap; nodes leave through one address", async () => {
    const { of } = await sample("prod");
    const subnets = new Map(of("network:Subnet").map(({ name, inputs }) => [name, inputs]));
    expect([...subnets].map(([name, inputs]) => [name, inputs["addressPrefix"]])).toEqual([
      ["nodes", "10.40.0.0/17"],
      ["endpoints", "10.40.128.0/24"],
      ["postgres", "10.40.129.0/24"],
    ]);
    expect(subnets.get("nodes")).toHaveProperty("natGateway");
    expect([...subnets.values()].every((inputs) => inputs["defaultOutboundAccess"] === false)).toBe(true);
  });

  test("the cache in production: a private endpoint alone", async () => {
    const { of, only } = await sample("prod");
    expect(only("storage:StorageAccount")).toMatchObject({
      publicNetworkAccess: "Disabled",
      sku: { name: "Standard_ZRS" },
    });
    expect(
      of("network:PrivateEndpoint")
        .map(({ name }) => name)
        .toSorted(),
    ).toEqual(["cache-endpoint", "redis-endpoint"]);
    expect(of("privatedns:PrivateZone").map(({ inputs }) => inputs["privateZoneName"])).toContain(
      "privatelink.blob.core.windows.net",
    );
  });

  test("the cache in dev: from the nodes' subnet, where traffic costs nothing, and from named addresses", async () => {
    const apiAllowedAddresses = ["203.0.113.0/24", "198.51.100.8/32", "198.51.100.6/31"];
    const { of, only } = await deployed({ ...plans.dev, network: { ...plans.dev.network, apiAllowedAddresses } });
    expect(of("network:PrivateEndpoint")).toEqual([]);
    expect(only("storage:StorageAccount")["networkRuleSet"]).toMatchObject({
      defaultAction: "Deny",
      virtualNetworkRules: [{ virtualNetworkResourceId: expect.stringMatching(/nodes$/) }],
      ipRules: ["203.0.113.0/24", "198.51.100.8", "198.51.100.6", "198.51.100.7"].map((iPAddressOrRange) => ({
        iPAddressOrRange,
      })),
    });
    const [nodes] = of("network:Subnet");
    expect(nodes?.inputs["serviceEndpoints"]).toEqual([{ service: "Microsoft.Storage" }]);
  });

  test("a range that is too small says so", async () => {
    const plan = plans.dev;
    const small = { ...plan, network: { ...plan.network, cidr: "10.40.0.0/26" } };
    await expect(underMocks({ program: () => deployAzure(small), ...azureMocks, bare: true })).rejects.toThrow(
      "10.40.0.0/26 is too small",
    );
  });
});

describe("stores, dashboards, outputs", () => {
  test("PostgreSQL: inside the network, over two zones, with pgvector allowed and people by Entra ID", async () => {
    const { only, outputs } = await sample("prod");
    expect(only("dbforpostgresql:Server")).toMatchObject({
      version: "17",
      sku: { name: "Standard_D2ds_v5", tier: "GeneralPurpose" },
      storage: { storageSizeGB: 128, autoGrow: "Disabled" },
      highAvailability: { mode: "ZoneRedundant" },
      authConfig: { activeDirectoryAuth: "Enabled", passwordAuth: "Enabled" },
    });
    expect(only("dbforpostgresql:Configuration")).toMatchObject({
      configurationName: "azure.extensions",
      value: "VECTOR",
    });
    expect(outputs.postgresUrl).not.toBeNull();
  });

  test("Redis: TLS, not public; its key is written so that a URL can hold it", async () => {
    const { only, outputs } = await sample("prod");
    expect(only("redisenterprise:RedisEnterprise")).toMatchObject({
      publicNetworkAccess: "Disabled",
      minimumTlsVersion: "1.2",
    });
    expect(only("redisenterprise:Database")).toMatchObject({ clientProtocol: "Encrypted", port: 10_000 });
    const url = new URL((outputs.redisUrl && (await valueOf(outputs.redisUrl))) ?? "");
    expect(decodeURIComponent(url.password)).toBe("key/with+signs=");
  });

  test("managed metrics and dashboards, or none of them", async () => {
    const prod = await sample("prod");
    expect(prod.only("containerservice:ManagedCluster")["azureMonitorProfile"]).toEqual({ metrics: { enabled: true } });
    expect(prod.of("monitor:DataCollectionRuleAssociation")).toHaveLength(1);
    expect(Object.keys(prod.outputs.links)).toContain("grafana");
    const dev = await sample("dev");
    expect(dev.of("dashboard:Grafana")).toEqual([]);
    expect(Object.keys(dev.outputs.links)).not.toContain("grafana");
    // Who did what on the cluster is logged in both.
    expect(dev.of("monitor:DiagnosticSetting")).toHaveLength(1);
  });

  test("alert rules are Azure's where it collects the metrics, and people are told", async () => {
    const { of, only } = await sample("prod");
    const groups = of("alertsmanagement:PrometheusRuleGroup");
    expect(groups).toHaveLength(alertGroups.length);
    const told = JSON.stringify(only("monitor:ActionGroup")["emailReceivers"]);
    for (const email of plans.prod.observability.alertEmails) expect(told).toContain(email);
    // Azure takes 20 rules a group.
    for (const { inputs } of groups) expect(inputs["rules"]).toSatisfy((rules: unknown[]) => rules.length <= 20);
    const [first] = alertGroups;
    const [rule] = first?.rules ?? [];
    expect(groups.find(({ name }) => name === first?.name)?.inputs).toMatchObject({
      scopes: [expect.stringContaining("AzureMonitorWorkspace"), expect.stringContaining("ManagedCluster")],
      rules: expect.arrayContaining([
        expect.objectContaining({
          alert: rule?.name,
          expression: rule?.expr,
          for: `PT${rule?.minutes}M`,
          actions: [{ actionGroupId: expect.stringContaining("ActionGroup") }],
        }),
      ]),
    });
    expect((await sample("dev")).of("alertsmanagement:PrometheusRuleGroup")).toEqual([]);
  });

  test("the budget watches both groups: ours and the one with the nodes", async () => {
    const { only } = await sample("prod");
    expect(only("consumption:Budget")).toMatchObject({
      filter: {
        dimensions: { name: "ResourceGroupName", operator: "In", values: ["penstock-prod", "penstock-prod-nodes"] },
      },
      timePeriod: { startDate: expect.stringMatching(/^\d{4}-\d{2}-01T00:00:00Z$/) },
    });
  });

  test("the gateway's load balancer: public with a name and tags, or internal", async () => {
    const plan = { ...plans.prod, tags: { owner: "platform", strange: "a,b=c" } };
    const prefix = "service.beta.kubernetes.io/azure";
    const open = await deployed(plan);
    expect(open.outputs.serviceAnnotations).toMatchObject({
      [`${prefix}-dns-label-name`]: expect.stringMatching(/^penstock-prod-[0-9a-z]{6}$/),
      [`${prefix}-pip-tags`]: "owner=platform",
    });
    const { gateway } = plan;
    const inside = await deployed({ ...plan, gateway: { ...gateway, config: { ...gateway.config, internal: true } } });
    expect(inside.outputs.serviceAnnotations).toMatchObject({ [`${prefix}-load-balancer-internal`]: "true" });
    expect(Object.keys(inside.outputs.links)).not.toContain("endpointName");
  });

  test("pods get an identity by annotation and label, and never a key", async () => {
    const { outputs, of } = await sample("prod");
    expect(outputs.serviceAccounts.gateway.annotations).toEqual({});
    const { annotations } = outputs.serviceAccounts.agent;
    const clientId = pulumi.output(annotations["azure.workload.identity/client-id"] ?? "");
    expect(await valueOf(clientId)).toBe("client-of-penstock-prod-agent");
    expect(
      of("managedidentity:FederatedIdentityCredential")
        .map(({ inputs }) => String(inputs["subject"]))
        .toSorted(),
    ).toEqual(["system:serviceaccount:penstock:agent", "system:serviceaccount:penstock:model-push"]);
    expect(Object.keys(outputs.storageEnv)).toEqual(["AZURE_STORAGE_ACCOUNT_NAME"]);
  });

  test("a plan for another cloud is refused", async () => {
    const plan = { ...plans.dev, cloud: "aws" as const };
    await expect(underMocks({ program: () => deployAzure(plan), ...azureMocks, bare: true })).rejects.toThrow(
      "not for Azure",
    );
  });
});
