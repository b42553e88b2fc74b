import { output } from "@pulumi/pulumi";
import { describe, expect, test } from "vitest";
import type { CloudPlan, PlannedPool } from "../../infra/plan/plan.ts";
import { deployedOnAws as deployed, plans, sample } from "../support/pulumi/aws-deployed.ts";
import { valueOf } from "../support/pulumi/mocks.ts";

/** A node group of H100s as fleets over several nodes get it, with changes. */
function samplePool(changes: Partial<PlannedPool>): PlannedPool {
  const pool = plans.prod.pools.find(({ size }) => size === "p5.48xlarge");
  if (pool === undefined) throw new Error("The production stack has no H100.");
  return { ...pool, provisioner: "node-group", placementGroup: true, zones: ["us-east-1b"], minNodes: 1, ...changes };
}

function withPool(changes: Partial<PlannedPool>): CloudPlan {
  return { ...plans.prod, pools: [samplePool(changes)] };
}

type Json = Record<string, unknown>;

function statementsOf(policy: unknown): Json[] {
  // Policies of ours are objects with a list of statements.
  return (JSON.parse(String(policy)) as { Statement: Json[] }).Statement;
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [value];
}

describe("node groups", () => {
  const { name } = samplePool({});
  const overSeveralNodes = deployed(withPool({}));

  test("over several nodes: close together, EFA on each card, one disk of all NVMe, one node at a time", async () => {
    const { only } = await overSeveralNodes;
    const group = only("eks:NodeGroup", `pool-${name}`).inputs;
    expect(group).toMatchObject({
      nodeGroupName: name,
      amiType: "AL2023_x86_64_NVIDIA",
      capacityType: "ON_DEMAND",
      subnetIds: ["private-us-east-1b-id"],
      scalingConfig: { minSize: 1, maxSize: 2, desiredSize: 1 },
      updateConfig: { maxUnavailable: 1, updateStrategy: "MINIMAL" },
      nodeRepairConfig: { enabled: true },
      version: plans.prod.cluster.kubernetesVersion,
    });
    // Machines of a template say their own size.
    expect(group).not.toHaveProperty("instanceTypes");
    const template = only("ec2:LaunchTemplate", `pool-${name}`).inputs;
    expect(template).toMatchObject({
      instanceType: "p5.48xlarge",
      placement: { groupName: `penstock-prod-${name}` },
      metadataOptions: { httpTokens: "required", httpPutResponseHopLimit: 1 },
      blockDeviceMappings: [{ ebs: { volumeSize: 256, volumeType: "gp3", encrypted: "true" } }],
    });
    expect(template).not.toHaveProperty("capacityReservationSpecification");
    expect(only("ec2:PlacementGroup").inputs).toMatchObject({ name: `penstock-prod-${name}`, strategy: "cluster" });
    const userData = Buffer.from(String(template["userData"]), "base64").toString();
    expect(userData).toMatch(/^MIME-Version: 1\.0\nContent-Type: multipart\/mixed; boundary="penstock"\n/);
    const [, config = ""] = /Content-Type: application\/node\.eks\.aws\n\n([^]*)\n--penstock--/.exec(userData) ?? [];
    expect(JSON.parse(config)).toEqual({
      apiVersion: "node.eks.aws/v1alpha1",
      kind: "NodeConfig",
      spec: { instance: { localStorage: { strategy: "RAID0" } } },
    });
  });

  test("network cards: the first has the addresses, the others EFA alone, all of them both security groups", async () => {
    const { only } = await overSeveralNodes;
    const interfaces = listOf(only("ec2:LaunchTemplate", `pool-${name}`).inputs["networkInterfaces"]);
    const securityGroups = ["sg-cluster", "efa-id"];
    const rest = { interfaceType: "efa-only", securityGroups, deleteOnTermination: "true", deviceIndex: 1 };
    expect(interfaces).toEqual([
      { ...rest, networkCardIndex: 0, deviceIndex: 0, interfaceType: "efa" },
      ...Array.from({ length: 31 }, (_, at) => ({ ...rest, networkCardIndex: at + 1 })),
    ]);
    for (const rule of ["SecurityGroupIngressRule", "SecurityGroupEgressRule"]) {
      expect(only(`vpc:${rule}`, rule.includes("Ingress") ? "efa-in" : "efa-out").inputs).toMatchObject({
        securityGroupId: "efa-id",
        referencedSecurityGroupId: "efa-id",
        ipProtocol: "-1",
      });
    }
    // EKS takes the group with this tag for the nodes' own, and there must be one.
    expect(JSON.stringify(only("ec2:SecurityGroup", "efa").inputs["tags"])).not.toContain("kubernetes.io/cluster");
  });

  test("a size whose first card has no EFA has one card more", async () => {
    const { node } = samplePool({});
    const { only } = await deployed(withPool({ size: "p6-b300.48xlarge", node: { ...node, efaInterfaces: 16 } }));
    const interfaces = listOf(only("ec2:LaunchTemplate", `pool-${name}`).inputs["networkInterfaces"]);
    expect(interfaces).toHaveLength(17);
    expect(interfaces[0]).toMatchObject({ networkCardIndex: 0, deviceIndex: 0, interfaceType: "interface" });
    expect(interfaces[16]).toMatchObject({ networkCardIndex: 16, deviceIndex: 0, interfaceType: "efa-only" });
  });

  test("a size without EFA or NVMe has what EKS gives it", async () => {
    const { node } = samplePool({});
    const { only, of } = await deployed(withPool({ node: { ...node, efaInterfaces: 0, nvmeGiB: 0 } }));
    const template = only("ec2:LaunchTemplate", `pool-${name}`).inputs;
    expect(template).not.toHaveProperty("networkInterfaces");
    expect(template).not.toHaveProperty("userData");
    expect(of("ec2:SecurityGroup").map((group) => group.name)).not.toContain("efa");
  });

  test("a capacity block: aimed at it, and no placement group, which would keep nodes from it", async () => {
    const { only, of } = await deployed(withPool({ capacity: "block", reservationId: "cr-1", minNodes: 0 }));
    expect(only("eks:NodeGroup", `pool-${name}`).inputs).toMatchObject({
      capacityType: "CAPACITY_BLOCK",
      scalingConfig: { minSize: 0, desiredSize: 0 },
    });
    expect(only("ec2:LaunchTemplate", `pool-${name}`).inputs).toMatchObject({
      instanceMarketOptions: { marketType: "capacity-block" },
      capacityReservationSpecification: { capacityReservationTarget: { capacityReservationId: "cr-1" } },
    });
    expect(of("ec2:PlacementGroup")).toEqual([]);
  });

  test("a reservation is on demand, aimed at it; spot is spot", async () => {
    const reserved = await deployed(withPool({ capacity: "reserved", reservationId: "cr-2" }));
    expect(reserved.only("eks:NodeGroup", `pool-${name}`).inputs["capacityType"]).toBe("ON_DEMAND");
    const template = reserved.only("ec2:LaunchTemplate", `pool-${name}`).inputs;
    expect(template).toMatchObject({
      capacityReservationSpecification: { capacityReservationTarget: { capacityReservationId: "cr-2" } },
    });
    expect(template).not.toHaveProperty("instanceMarketOptions");
    const spot = await deployed(withPool({ capacity: "spot" }));
    expect(spot.only("eks:NodeGroup", `pool-${name}`).inputs["capacityType"]).toBe("SPOT");
  });

  test("machines, disks and interfaces carry the tags: those of a template are not theirs", async () => {
    const { only } = await overSeveralNodes;
    const specifications = listOf(only("ec2:LaunchTemplate", `pool-${name}`).inputs["tagSpecifications"]);
    expect(specifications).toEqual(
      ["instance", "volume", "network-interface"].map((resourceType) => ({
        resourceType,
        tags: { ...plans.prod.tags, Name: "penstock-prod-p5.48xlarge" },
      })),
    );
  });

  test("a renamed pool keeps its nodes: nothing of its template or group changes but names, which are let be", async () => {
    const before = await overSeveralNodes;
    const after = await deployed(withPool({ name: "new", formerNames: [name] }));
    const template = after.only("ec2:LaunchTemplate", "pool-new");
    const placement = { groupName: "penstock-prod-new" };
    expect(template).toMatchObject({ aliases: [`pool-${name}`], ignoreChanges: ["name"] });
    expect(after.only("ec2:PlacementGroup")).toMatchObject({ aliases: [`near-${name}`], ignoreChanges: ["name"] });
    // A real engine keeps the name of the placement group, and with it the template's mention of it.
    expect(template.inputs).toEqual({
      ...before.only("ec2:LaunchTemplate", `pool-${name}`).inputs,
      name: "penstock-prod-new",
      placement,
    });
    const group = after.only("eks:NodeGroup", "pool-new");
    expect(group).toMatchObject({
      aliases: [`pool-${name}`],
      ignoreChanges: ["scalingConfig.desiredSize", "nodeGroupName"],
    });
    const { launchTemplate } = group.inputs;
    const old = before.only("eks:NodeGroup", `pool-${name}`).inputs;
    expect(group.inputs).toEqual({ ...old, nodeGroupName: "new", launchTemplate });
  });

  test("the autoscaler's priorities can name each node group's scaling group, and no pool of Karpenter's", async () => {
    const { outputs } = await deployed({ ...plans.prod, pools: [...plans.prod.pools, samplePool({ name: "near" })] });
    const patterns = outputs.nodeGroupPatterns;
    expect(Object.keys(patterns)).toEqual(["near"]);
    const pattern = new RegExp(await valueOf(output(patterns["near"] ?? "")));
    expect("eks-near-b4c5d6e7-1234-5678-9abc-def012345678").toMatch(pattern);
    expect("eks-nearer-b4c5d6e7-1234-5678-9abc-def012345678").not.toMatch(pattern);
  });

  test("Karpenter places nodes in a group that has the pool's present name", async () => {
    const { only, of } = await deployed(withPool({ provisioner: "karpenter", formerNames: ["old"] }));
    expect(only("ec2:PlacementGroup")).toMatchObject({
      inputs: { name: `penstock-prod-${name}` },
      ignoreChanges: [],
    });
    expect(of("eks:NodeGroup").map((group) => group.name)).toEqual(["system"]);
  });
});

describe("Karpenter", () => {
  test("its nodes join with the role that its classes name", async () => {
    const { only } = await sample("prod");
    expect(only("iam:Role", "karpenter-node-role").inputs["name"]).toBe("penstock-prod-karpenter-node");
    expect(only("eks:AccessEntry", "karpenter-node").inputs).toMatchObject({
      principalArn: expect.stringMatching(/role\/penstock-prod-karpenter-node$/),
      type: "EC2_LINUX",
    });
  });

  test("it hears of what AWS takes away, in the queue that has the cluster's name", async () => {
    const { only, of } = await sample("prod");
    expect(only("sqs:Queue").inputs).toMatchObject({ name: "penstock-prod", sqsManagedSseEnabled: true });
    const [send, deny] = statementsOf(only("sqs:QueuePolicy").inputs["policy"]);
    expect(send).toMatchObject({
      Principal: { Service: "events.amazonaws.com" },
      Action: "sqs:SendMessage",
      Condition: { ArnLike: { "aws:SourceArn": "arn:aws:events:us-east-1:123456789012:rule/penstock-prod-*" } },
    });
    expect(deny).toMatchObject({ Effect: "Deny", Condition: { Bool: { "aws:SecureTransport": "false" } } });
    const rules = of("cloudwatch:EventRule");
    expect(rules).toHaveLength(5);
    const targets = of("cloudwatch:EventTarget").map(({ inputs }) => inputs);
    expect(new Set(targets.map(({ rule }) => rule))).toEqual(new Set(rules.map(({ inputs }) => inputs["name"])));
    expect(new Set(targets.map(({ arn }) => arn))).toEqual(
      new Set(["arn:aws:sqs:us-east-1:123456789012:penstock-prod"]),
    );
    expect(rules.map(({ inputs }) => String(inputs["eventPattern"])).join()).toContain(
      "EC2 Spot Instance Interruption Warning",
    );
  });

  test("it changes what carries the cluster's tags, and nothing else", async () => {
    const { only } = await sample("prod");
    const { policy } = only("iam:RolePolicy", "karpenter-policy").inputs;
    // IAM's limit of what is written into a role.
    expect(String(policy).length).toBeLessThan(10_240);
    const changes = /^(ec2:(Create|Run|Terminate|Delete)|iam:(Create|Tag|Add|Remove|Delete))/;
    const unbound = statementsOf(policy).filter(({ Action, Condition, Resource }) => {
      const actions = listOf(Action).map(String);
      if (actions.some((action) => action.includes("*"))) return true;
      // What is only used, such as a subnet, has no tag to ask for.
      const makes = /(instance|volume|template|fleet|profile)\/|"\*"/.test(JSON.stringify(Resource));
      const isBound = JSON.stringify(Condition ?? {}).includes("kubernetes.io/cluster/penstock-prod");
      return actions.some((action) => changes.test(action)) && makes && !isBound;
    });
    expect(unbound).toEqual([]);
    const pass = statementsOf(policy).find(({ Action }) => Action === "iam:PassRole");
    expect(pass).toMatchObject({
      Resource: "arn:aws:iam::123456789012:role/penstock-prod-karpenter-node",
      Condition: { StringEquals: { "iam:PassedToService": "ec2.amazonaws.com" } },
    });
  });

  test("a stack whose nodes are all of node groups has none of it", async () => {
    const { of } = await deployed(withPool({}));
    expect(of("sqs:Queue")).toEqual([]);
    expect(of("eks:PodIdentityAssociation").map(({ name }) => name)).not.toContain("karpenter");
  });

  test("it finds subnets and the security group by their tags", async () => {
    const { of, only } = await sample("prod");
    const found = of("ec2:Subnet").filter(({ inputs }) =>
      JSON.stringify(inputs["tags"]).includes('"karpenter.sh/discovery":"penstock-prod"'),
    );
    expect(found.map(({ name }) => name)).toEqual(["private-us-east-1a", "private-us-east-1b", "private-us-east-1c"]);
    expect(only("ec2:Tag").inputs).toMatchObject({
      resourceId: "sg-cluster",
      key: "karpenter.sh/discovery",
      value: "penstock-prod",
    });
  });
});

describe("the cluster", () => {
  const admin = "arn:aws:iam::123456789012:role/platform";

  test("private, encrypted, logged; GPUs are filled before the next node is touched", async () => {
    const { only } = await sample("prod");
    const cluster = only("eks:Cluster");
    expect(cluster.inputs).toMatchObject({
      name: "penstock-prod",
      accessConfig: { authenticationMode: "API", bootstrapClusterCreatorAdminPermissions: false },
      vpcConfig: { endpointPrivateAccess: true, endpointPublicAccess: false },
      encryptionConfig: { resources: ["secrets"], provider: { keyArn: expect.stringContaining(":key/") } },
      upgradePolicy: { supportType: "STANDARD" },
      bootstrapSelfManagedAddons: false,
      deletionProtection: true,
      kubeSchedulerConfig: {
        nodeResourcesFit: {
          scoringStrategy: { type: "MostAllocated", resources: [{ name: "nvidia.com/gpu", weight: 100 }] },
        },
      },
    });
    expect(listOf(cluster.inputs["enabledClusterLogTypes"])).toHaveLength(5);
    // EKS would make the logs itself, and keep them for ever.
    expect(only("cloudwatch:LogGroup", "cluster").inputs).toMatchObject({
      name: "/aws/eks/penstock-prod/cluster",
      retentionInDays: 30,
    });
    expect(cluster.dependencies.some((urn) => urn.endsWith("LogGroup::cluster"))).toBe(true);
    expect(only("kms:Key").inputs).toMatchObject({ enableKeyRotation: true, deletionWindowInDays: 30 });
    // Whoever deploys is inside of the network then.
    expect(only("vpc:SecurityGroupIngressRule", "api-from-inside").inputs).toMatchObject({
      securityGroupId: "sg-cluster",
      cidrIpv4: "10.40.0.0/16",
      fromPort: 443,
    });
  });

  test("public for the named ranges alone", async () => {
    const { only, of } = await sample("dev");
    expect(only("eks:Cluster").inputs).toMatchObject({
      vpcConfig: {
        endpointPrivateAccess: true,
        endpointPublicAccess: true,
        publicAccessCidrs: plans.dev.network.apiAllowedAddresses,
      },
      deletionProtection: false,
    });
    expect(of("vpc:SecurityGroupIngressRule").map(({ name }) => name)).not.toContain("api-from-inside");
  });

  test("without admins, the role that deploys is one; with them, they are", async () => {
    const entries = async (plan: CloudPlan): Promise<unknown[]> =>
      (await deployed(plan)).of("eks:AccessPolicyAssociation").map(({ inputs }) => inputs["principalArn"]);
    expect(await entries(plans.prod)).toEqual(["arn:aws:iam::123456789012:role/deployer"]);
    const named = { ...plans.prod, cluster: { ...plans.prod.cluster, admins: [admin] } };
    expect(await entries(named)).toEqual([admin]);
  });

  test("the kubeconfig logs in through the AWS CLI, with Pulumi's profile where it has one", async () => {
    const { outputs } = await sample("prod");
    const kubeconfig = JSON.parse(await valueOf(outputs.kubeconfig));
    expect(kubeconfig).toMatchObject({
      clusters: [
        { cluster: { server: expect.stringContaining(".eks."), "certificate-authority-data": "Y2VydGlmaWNhdGU=" } },
      ],
      users: [
        {
          user: {
            exec: {
              command: "aws",
              args: [
                "eks",
                "get-token",
                "--cluster-name",
                "penstock-prod",
                "--region",
                "us-east-1",
                "--output",
                "json",
              ],
            },
          },
        },
      ],
      "current-context": "penstock-prod",
    });
    expect(kubeconfig.users[0].user.exec).not.toHaveProperty("env");
    const other = await deployed(plans.dev, { config: { "aws:profile": "platform" } });
    const { users } = JSON.parse(await valueOf(other.outputs.kubeconfig));
    expect(users[0].user.exec.env).toEqual([{ name: "AWS_PROFILE", value: "platform" }]);
    expect(other.only("pulumi:providers:aws").inputs).toMatchObject({ profile: "platform", region: "us-east-1" });
  });

  test("network, proxy and identities are there before any node; names, metrics and disks after", async () => {
    const { only, of } = await sample("prod");
    const system = only("eks:NodeGroup", "system");
    const version = "v1.2.3-eksbuild.1";
    for (const name of ["vpc-cni", "kube-proxy", "eks-pod-identity-agent"]) {
      expect(only("eks:Addon", name).inputs).toMatchObject({ addonName: name, addonVersion: version });
      expect(system.dependencies.some((urn) => urn.endsWith(`Addon::${name}`))).toBe(true);
    }
    for (const name of ["coredns", "metrics-server", "aws-ebs-csi-driver"]) {
      expect(only("eks:Addon", name).dependencies.some((urn) => urn.endsWith("NodeGroup::system"))).toBe(true);
    }
    expect(of("eks:Addon")).toHaveLength(6);
    expect(only("eks:Addon", "vpc-cni").inputs["configurationValues"]).toBe('{"enableNetworkPolicy":"true"}');
    expect(JSON.parse(String(only("eks:Addon", "aws-ebs-csi-driver").inputs["configurationValues"]))).toEqual({
      controller: { extraVolumeTags: plans.prod.tags },
    });
  });

  test("no node starts before it can get out, and its count is the autoscaler's", async () => {
    const { only, of } = await sample("prod");
    const system = only("eks:NodeGroup", "system");
    for (const { name } of of("ec2:Route")) {
      expect(system.dependencies.some((urn) => urn.endsWith(`Route::${name}`))).toBe(true);
    }
    expect(system.ignoreChanges).toEqual(["scalingConfig.desiredSize"]);
    expect(system.inputs).toMatchObject({ scalingConfig: { minSize: 3, maxSize: 6, desiredSize: 3 } });
  });

  test("Kubernetes waits for everything that is not the budget or a name", async () => {
    const { outputs, resources } = await sample("prod");
    const keyOf = (urn: string): string => urn.split("::").slice(2).join("::").replace(/^.*\$/, "");
    const known = new Map(resources.map((each) => [`${each.type}::${each.name}`, each]));
    const reached = new Set<string>();
    const visit = (key: string): void => {
      if (reached.has(key)) return;
      reached.add(key);
      for (const urn of known.get(key)?.dependencies ?? []) visit(keyOf(urn));
    };
    for (const urn of await Promise.all(outputs.dependsOn.map((each) => valueOf(each.urn)))) visit(keyOf(urn));
    const missed = resources.filter(({ custom, type, name }) => custom && !reached.has(`${type}::${name}`));
    expect(missed.map(({ type }) => type).toSorted()).toEqual([
      "aws:budgets/budget:Budget",
      "aws:kms/alias:Alias",
      "pulumi:providers:aws",
    ]);
  });
});
