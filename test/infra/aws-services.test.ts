import { describe, expect, test } from "vitest";
import { deployAws } from "../../infra/aws/index.ts";
import { retentionOf } from "../../infra/aws/logs.ts";
import type { CloudPlan } from "../../infra/plan/plan.ts";
import { awsMocks } from "../support/pulumi/aws.ts";
import { deployedOnAws as deployed, plans, sample } from "../support/pulumi/aws-deployed.ts";
import { underMocks, valueOf } from "../support/pulumi/mocks.ts";

interface Statement {
  readonly Sid?: string;
  readonly Effect: string;
  readonly Principal?: unknown;
  readonly Action: string | readonly string[];
  readonly Resource?: string | readonly string[];
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/** Policies of ours are objects with a list of statements. */
function statementsOf(policy: unknown): readonly Statement[] {
  return (JSON.parse(String(policy)) as { readonly Statement: readonly Statement[] }).Statement;
}

describe("the network", () => {
  test("per zone a private part for nodes and a small public one, which do not overlap", async () => {
    const { of } = await sample("prod");
    const subnets = of("ec2:Subnet").map(({ name, inputs: { availabilityZone, cidrBlock } }) => {
      expect(name.endsWith(`-${String(availabilityZone)}`)).toBe(true);
      return `${name} ${String(cidrBlock)}`;
    });
    expect(subnets.toSorted()).toEqual([
      "private-us-east-1a 10.40.0.0/19",
      "private-us-east-1b 10.40.32.0/19",
      "private-us-east-1c 10.40.64.0/19",
      "public-us-east-1a 10.40.128.0/24",
      "public-us-east-1b 10.40.129.0/24",
      "public-us-east-1c 10.40.130.0/24",
    ]);
  });

  test("load balancers find public subnets for clients from outside, private ones for those inside", async () => {
    const { only } = await sample("prod");
    expect(only("ec2:Subnet", "public-us-east-1a").inputs["tags"]).toMatchObject({
      "kubernetes.io/role/elb": "1",
      "kubernetes.io/cluster/penstock-prod": "shared",
    });
    const { tags } = only("ec2:Subnet", "private-us-east-1a").inputs;
    expect(tags).toMatchObject({ "kubernetes.io/role/internal-elb": "1" });
    expect(tags).not.toHaveProperty(["kubernetes.io/role/elb"]);
  });

  test("in production each zone leaves through a gateway of its own; in development all through one", async () => {
    const gatewayOf = async (environment: "dev" | "prod"): Promise<string[]> =>
      (await sample(environment))
        .of("ec2:Route")
        .filter(({ name }) => name.startsWith("private-"))
        .map(({ name, inputs }) => `${name}: ${String(inputs["natGatewayId"])}`)
        .toSorted();
    expect(await gatewayOf("prod")).toEqual([
      "private-us-east-1a: nat-us-east-1a-id",
      "private-us-east-1b: nat-us-east-1b-id",
      "private-us-east-1c: nat-us-east-1c-id",
    ]);
    expect(await gatewayOf("dev")).toEqual([
      "private-us-east-1a: nat-us-east-1a-id",
      "private-us-east-1b: nat-us-east-1a-id",
    ]);
  });

  test("S3 is reached without NAT: only the models, by this account, and images that are read", async () => {
    const { only } = await sample("prod");
    const { inputs } = only("ec2:VpcEndpoint", "s3");
    expect(inputs).toMatchObject({ vpcEndpointType: "Gateway", serviceName: "com.amazonaws.us-east-1.s3" });
    expect(inputs["routeTableIds"]).toHaveLength(3);
    const [models, images, ...more] = statementsOf(inputs["policy"]);
    expect(more).toEqual([]);
    expect(models).toMatchObject({
      Resource: ["arn:aws:s3:::penstock-prod-models", "arn:aws:s3:::penstock-prod-models/*"],
      Condition: { StringEquals: { "aws:PrincipalAccount": "123456789012" } },
    });
    expect(images?.Action).toBe("s3:GetObject");
    expect(images?.Resource).toContain("arn:aws:s3:::prod-us-east-1-starport-layer-bucket/*");
  });

  test("endpoints of every service in use, or of S3 alone", async () => {
    const endpoints = async (environment: "dev" | "prod"): Promise<string[]> =>
      (await sample(environment))
        .of("ec2:VpcEndpoint")
        .map(({ name }) => name)
        .toSorted();
    expect(await endpoints("dev")).toEqual(["s3"]);
    expect(await endpoints("prod")).toEqual(
      [
        "aps-workspaces",
        "autoscaling",
        "ec2",
        "ecr.api",
        "ecr.dkr",
        "eks",
        "eks-auth",
        "s3",
        "sqs",
        "ssm",
        "sts",
      ].toSorted(),
    );
    const { only } = await sample("prod");
    expect(only("ec2:VpcEndpoint", "sts").inputs).toMatchObject({
      vpcEndpointType: "Interface",
      privateDnsEnabled: true,
      securityGroupIds: ["endpoints-id"],
    });
  });

  test("what nobody named a group for talks to nobody; refused connections are written down in production", async () => {
    const prod = await sample("prod");
    expect(prod.only("ec2:DefaultSecurityGroup").inputs).toMatchObject({ ingress: [], egress: [] });
    expect(prod.only("ec2:FlowLog").inputs).toMatchObject({
      trafficType: "REJECT",
      logDestination: expect.stringContaining("/aws/vpc/penstock-prod"),
    });
    expect((await sample("dev")).of("ec2:FlowLog")).toEqual([]);
  });

  test("a range that is too small says so", async () => {
    const plan = plans.dev;
    const small = { ...plan, network: { ...plan.network, cidr: "10.40.0.0/26" } };
    await expect(underMocks({ program: () => deployAws(small), ...awsMocks, bare: true })).rejects.toThrow(
      "10.40.0.0/26 is too small",
    );
  });
});

describe("stores", () => {
  test("PostgreSQL: inside the network, over two zones, encrypted, with backups; only the cluster may connect", async () => {
    const { only, outputs } = await sample("prod");
    expect(only("rds:Instance").inputs).toMatchObject({
      engine: "postgres",
      engineVersion: "17",
      instanceClass: "db.m7g.large",
      allocatedStorage: 128,
      storageType: "gp3",
      multiAz: true,
      publiclyAccessible: false,
      backupRetentionPeriod: 14,
      deletionProtection: true,
      skipFinalSnapshot: false,
      vpcSecurityGroupIds: ["postgres-id"],
    });
    expect(only("rds:Instance").secretInputs).toEqual(["password"]);
    expect(only("rds:SubnetGroup").inputs["subnetIds"]).toHaveLength(3);
    expect(only("vpc:SecurityGroupIngressRule", "postgres-in").inputs).toMatchObject({
      securityGroupId: "postgres-id",
      referencedSecurityGroupId: "sg-cluster",
      fromPort: 5432,
      toPort: 5432,
    });
    const url = new URL((outputs.postgresUrl && (await valueOf(outputs.postgresUrl))) ?? "");
    expect({ user: url.username, database: url.pathname }).toEqual({ user: "penstock", database: "/penstock" });
  });

  test("Valkey: TLS and a password, and a second one that takes over", async () => {
    const { only } = await sample("prod");
    const store = only("elasticache:ReplicationGroup");
    expect(store.inputs).toMatchObject({
      engine: "valkey",
      engineVersion: "8.1",
      nodeType: "cache.t4g.medium",
      numCacheClusters: 2,
      automaticFailoverEnabled: true,
      multiAzEnabled: true,
      transitEncryptionEnabled: true,
      atRestEncryptionEnabled: true,
    });
    expect(store.secretInputs).toEqual(["authToken"]);
    const { redis } = plans.prod;
    const single = await deployed({ ...plans.prod, redis: { ...redis, highAvailability: false } });
    expect(single.only("elasticache:ReplicationGroup").inputs).toMatchObject({
      numCacheClusters: 1,
      automaticFailoverEnabled: false,
    });
  });

  test("in development both are in the cluster, and models can be destroyed with the stack", async () => {
    const dev = await sample("dev");
    expect([...dev.of("rds:Instance"), ...dev.of("elasticache:ReplicationGroup")]).toEqual([]);
    expect(dev.only("s3:Bucket").inputs["forceDestroy"]).toBe(true);
    expect((await sample("prod")).only("s3:Bucket").inputs["forceDestroy"]).toBe(false);
  });

  test("somebody hears of a disk that is almost full", async () => {
    const { only, of } = await sample("prod");
    expect(only("cloudwatch:MetricAlarm").inputs).toMatchObject({
      metricName: "FreeStorageSpace",
      dimensions: { DBInstanceIdentifier: "penstock-prod-postgres" },
      // A fifth of 128 GiB, in bytes.
      threshold: 0.2 * 128 * 2 ** 30,
      alarmActions: ["arn:aws:sns:us-east-1:123456789012:penstock-prod-people"],
    });
    expect(of("sns:TopicSubscription").map(({ inputs }) => inputs["endpoint"])).toEqual(["platform@example.com"]);
    const { observability } = plans.prod;
    const silent = await deployed({ ...plans.prod, observability: { ...observability, alertEmails: [] } });
    expect(silent.of("cloudwatch:MetricAlarm")).toEqual([]);
  });

  test("unfinished uploads are removed, and old versions; the key is one for all, and asked for once for many objects", async () => {
    const { only } = await sample("prod");
    expect(only("s3:BucketLifecycleConfiguration").inputs["rules"]).toMatchObject([
      { id: "remove-old-versions", noncurrentVersionExpiration: { noncurrentDays: 90 } },
      { id: "remove-unfinished-uploads", abortIncompleteMultipartUpload: { daysAfterInitiation: 7 } },
    ]);
    expect(only("s3:BucketServerSideEncryptionConfiguration").inputs["rules"]).toMatchObject([
      { bucketKeyEnabled: true },
    ]);
  });
});

describe("identities", () => {
  test("each service account that uses AWS, by its name and namespace; the gateway uses nothing", async () => {
    const accounts = async (environment: "dev" | "prod"): Promise<string[]> =>
      (await sample(environment))
        .of("eks:PodIdentityAssociation")
        .map(({ inputs }) => `${String(inputs["namespace"])}/${String(inputs["serviceAccount"])}`)
        .toSorted();
    const always = [
      "penstock-system/cluster-autoscaler",
      "penstock-system/karpenter",
      "penstock/agent",
      "penstock/model-push",
    ];
    expect(await accounts("dev")).toEqual(always);
    expect(await accounts("prod")).toEqual(["penstock-monitoring/prometheus", ...always].toSorted());
    const { outputs } = await sample("prod");
    for (const { annotations } of Object.values(outputs.serviceAccounts)) expect(annotations).toEqual({});
    expect(outputs.storageEnv).toEqual({ AWS_REGION: "us-east-1" });
  });

  test("only pods of EKS take on those roles, only machines the nodes'", async () => {
    const { of } = await sample("prod");
    const trust = new Map(
      of("iam:Role").map(({ name, inputs }) => [name, statementsOf(inputs["assumeRolePolicy"])[0]?.Principal]),
    );
    expect(trust.get("agent-role")).toEqual({ Service: "pods.eks.amazonaws.com" });
    expect(trust.get("karpenter-role")).toEqual({ Service: "pods.eks.amazonaws.com" });
    expect(trust.get("node-role")).toEqual({ Service: "ec2.amazonaws.com" });
    expect(JSON.stringify([...trust.values()])).not.toContain('"*"');
  });

  test("no statement of ours allows everything, or anything everywhere that changes something", async () => {
    const { of } = await sample("prod");
    const wide: string[] = [];
    for (const { name, inputs } of of("iam:RolePolicy")) {
      for (const { Action, Resource, Condition, Sid } of statementsOf(inputs["policy"])) {
        const actions = [Action].flat();
        const reads = actions.every((action) => /^[a-z0-9]+:(Describe|Get|List)/.test(action));
        if (actions.some((action) => action.includes("*"))) wide.push(`${name} ${Sid}`);
        if (Resource === "*" && !reads && Condition === undefined) wide.push(`${name} ${Sid}`);
      }
    }
    expect(wide).toEqual([]);
  });

  test("the autoscaler resizes this cluster's groups alone", async () => {
    const { only } = await sample("prod");
    const resize = statementsOf(only("iam:RolePolicy", "cluster-autoscaler-policy").inputs["policy"]).find(
      ({ Sid }) => Sid === "Resize",
    );
    expect(resize?.Condition).toEqual({
      StringEquals: { "aws:ResourceTag/k8s.io/cluster-autoscaler/penstock-prod": "owned" },
    });
  });

  test("metrics go to the managed Prometheus, or stay", async () => {
    const prod = await sample("prod");
    const url = prod.outputs.metricsWriteUrl;
    expect(url && (await valueOf(url))).toBe(
      "https://aps-workspaces.us-east-1.amazonaws.com/workspaces/ws-1/api/v1/remote_write",
    );
    expect(prod.only("amp:WorkspaceConfiguration").inputs["retentionPeriodInDays"]).toBe(30);
    expect(statementsOf(prod.only("iam:RolePolicy", "prometheus-policy").inputs["policy"])).toEqual([
      {
        Effect: "Allow",
        Action: "aps:RemoteWrite",
        Resource: "arn:aws:aps:us-east-1:123456789012:workspace/ws-1",
      },
    ]);
    const dev = await sample("dev");
    expect(dev.outputs.metricsWriteUrl).toBeNull();
    expect(dev.of("amp:Workspace")).toEqual([]);
  });
});

describe("outputs", () => {
  test("the budget watches what carries the stack's tag", async () => {
    const { only } = await sample("prod");
    expect(only("budgets:Budget").inputs).toMatchObject({
      costFilters: [{ name: "TagKeyValue", values: ["user:stack$aws-prod"] }],
      limitUnit: "USD",
      timeUnit: "MONTHLY",
    });
  });

  test("the gateway's load balancer: a network one with tags, open or internal", async () => {
    const plan: CloudPlan = { ...plans.prod, tags: { owner: "platform", strange: "a,b=c" } };
    const prefix = "service.beta.kubernetes.io/aws-load-balancer";
    const open = await deployed(plan);
    expect(open.outputs.serviceAnnotations).toMatchObject({
      [`${prefix}-type`]: "nlb",
      [`${prefix}-additional-resource-tags`]: "owner=platform",
    });
    expect(open.outputs.serviceAnnotations).not.toHaveProperty([`${prefix}-internal`]);
    const { gateway } = plan;
    const inside = await deployed({ ...plan, gateway: { ...gateway, config: { ...gateway.config, internal: true } } });
    expect(inside.outputs.serviceAnnotations).toMatchObject({ [`${prefix}-internal`]: "true" });
    expect(Object.keys(open.outputs.links).toSorted()).toEqual(["cluster", "metrics", "models"]);
    expect(Object.keys((await sample("dev")).outputs.links)).not.toContain("metrics");
  });

  test.each([
    [1, 1],
    [2, 3],
    [30, 30],
    [31, 60],
    [365, 365],
    [730, 731],
  ])("logs that are to be kept for %i days are kept for %i, which CloudWatch offers", (days, offered) => {
    expect(retentionOf(days)).toBe(offered);
  });

  test("a plan for another cloud is refused", async () => {
    const plan = { ...plans.dev, cloud: "azure" as const };
    await expect(underMocks({ program: () => deployAws(plan), ...awsMocks, bare: true })).rejects.toThrow(
      "not for AWS",
    );
  });
});
