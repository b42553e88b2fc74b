import { deployAws } from "../../../infra/aws/index.ts";
import type { CloudPlan } from "../../../infra/plan/plan.ts";
import { planStack } from "../../../infra/plan/plan-stack.ts";
import { checkStack } from "../../../infra/stack/load.ts";
import { stackOf } from "../../support/plans.ts";
import { awsMocks } from "../../support/pulumi/aws.ts";
import type { Registered } from "../../support/pulumi/mocks.ts";
import { cloudContract, type ModelStore, type NodeGroup, type StoreGrant } from "./cloud.contract.ts";

cloudContract({
  name: "aws",
  deploy: deployAws,
  planOf,
  mocks: awsMocks,
  // Karpenter makes the others.
  makes: ({ provisioner }) => provisioner === "node-group",
  nodeGroups: (resources) =>
    of(resources, "eks/nodeGroup:NodeGroup")
      .filter(({ name }) => name.startsWith("pool-"))
      .map(nodeGroup),
  store,
  grants: storeGrants,
  stateful: (resources) =>
    [
      "kms/key:Key",
      "eks/cluster:Cluster",
      "s3/bucket:Bucket",
      "elasticache/replicationGroup:ReplicationGroup",
      "rds/instance:Instance",
    ].flatMap((type) => of(resources, type)),
  exposed,
  budget: (resources) => {
    const [budget] = of(resources, "budgets/budget:Budget");
    return {
      monthlyUsd: Number(budget?.inputs["limitAmount"]),
      alerts: recordsOf(budget?.inputs["notifications"]).map(
        ({ notificationType, threshold }) =>
          `${notificationType === "ACTUAL" ? "actual" : "forecast"} ${String(threshold)}`,
      ),
    };
  },
});

/** The stack that comes with Penstock, and a capacity block beside what it has: AWS itself makes the nodes of one. */
async function planOf(environment: "dev" | "prod"): Promise<CloudPlan> {
  const stack = await stackOf(`aws-${environment}`);
  if (stack.cloud !== "aws") throw new Error("The stack is not on AWS.");
  const block = {
    name: "block",
    sizes: ["p5.48xlarge"],
    capacity: ["block"],
    reservation: { id: "cr-0123456789abcdef0", nodes: 2 },
    zones: ["us-east-1a"],
    maxNodes: 2,
  };
  const fleets = stack.fleets.map((fleet, at) => (at === 0 ? { ...fleet, pool: "block", gpu: undefined } : fleet));
  const changed = { ...stack, pools: [...stack.pools, block], fleets };
  const plan = planStack(checkStack(changed, "/stacks/Pulumi.test.yaml"), { stackName: `aws-${environment}` });
  if (plan.cloud !== "aws") throw new Error("The plan is not for AWS.");
  return plan;
}

function of(resources: readonly Registered[], type: string): Registered[] {
  return resources.filter((resource) => resource.type === `aws:${type}`);
}

function recordOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

function recordsOf(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.map(recordOf) : [];
}

/** One text or a list of them, as IAM takes both. */
function stringsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : typeof value === "string" ? [value] : [];
}

function statementsOf(policy: unknown): Record<string, unknown>[] {
  return recordsOf(recordOf(JSON.parse(String(policy)))["Statement"]);
}

function nodeGroup(resource: Registered): NodeGroup {
  const { inputs, name } = resource;
  const scaling = recordOf(inputs["scalingConfig"]);
  return {
    pool: name.replace(/^pool-/, ""),
    minNodes: Number(scaling["minSize"]),
    maxNodes: Number(scaling["maxSize"]),
    initialNodes: Number(scaling["desiredSize"]),
    taints: recordsOf(inputs["taints"]).map(
      ({ key, value, effect }) =>
        `${String(key)}=${String(value)}:${effect === "NO_SCHEDULE" ? "NoSchedule" : "other"}`,
    ),
    // Labels are texts in AWS's schema.
    labels: recordOf(inputs["labels"]) as Record<string, string>,
    zones: stringsOf(inputs["subnetIds"]).map((id) => id.replace(/^private-(.*)-id$/, "$1")),
    spot: inputs["capacityType"] === "SPOT",
    // EKS waits for pods for a quarter of an hour, whatever one says.
    drainSeconds: 900,
    countInput: "scalingConfig.desiredSize",
    resource,
  };
}

function store(resources: readonly Registered[]): ModelStore {
  const [block] = of(resources, "s3/bucketPublicAccessBlock:BucketPublicAccessBlock");
  const [owner] = of(resources, "s3/bucketOwnershipControls:BucketOwnershipControls");
  const [policy] = of(resources, "s3/bucketPolicy:BucketPolicy");
  const [encryption] = of(
    resources,
    "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
  );
  const [versioning] = of(resources, "s3/bucketVersioning:BucketVersioning");
  const [lifecycle] = of(resources, "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration");
  const locks = ["blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"];
  const denied = statementsOf(policy?.inputs["policy"]).filter(({ Effect }) => Effect === "Deny");
  const [rule] = recordsOf(encryption?.inputs["rules"]);
  const { sseAlgorithm } = recordOf(rule?.["applyServerSideEncryptionByDefault"]);
  const rules = recordsOf(lifecycle?.inputs["rules"]);
  const days = rules
    .map(({ noncurrentVersionExpiration: old }) => recordOf(old)["noncurrentDays"])
    .find(Number.isInteger);
  return {
    openings: [
      ...locks.filter((lock) => block?.inputs[lock] !== true),
      ...(recordOf(owner?.inputs["rule"])["objectOwnership"] === "BucketOwnerEnforced" ? [] : ["ownership"]),
      ...(denied.some(({ Condition }) => JSON.stringify(Condition).includes('"aws:SecureTransport":"false"'))
        ? []
        : ["TLS"]),
      ...(denied.some(({ Condition }) => JSON.stringify(Condition).includes('"s3:TlsVersion":"1.2"'))
        ? []
        : ["old TLS"]),
      ...(sseAlgorithm === "aws:kms" ? [] : ["encryption"]),
      ...(statementsOf(policy?.inputs["policy"]).length === denied.length ? [] : ["a policy that allows"]),
    ],
    versioned: recordOf(versioning?.inputs["versioningConfiguration"])["status"] === "Enabled",
    oldVersionsDays: typeof days === "number" ? days : null,
  };
}

/** Statements about S3, of whatever role has them. */
function storeGrants(resources: readonly Registered[]): StoreGrant[] {
  const [bucket] = of(resources, "s3/bucket:Bucket");
  const models = `arn:aws:s3:::${String(bucket?.inputs["bucket"])}`;
  return of(resources, "iam/rolePolicy:RolePolicy").flatMap(({ inputs }) => {
    const statements = statementsOf(inputs["policy"]).filter(({ Action }) =>
      stringsOf(Action).some((action) => action === "*" || action.startsWith("s3:")),
    );
    if (statements.length === 0) return [];
    const actions = statements.flatMap(({ Action }) => stringsOf(Action));
    const places = statements.flatMap(({ Resource }) => stringsOf(Resource));
    return [
      {
        who: String(inputs["role"]).replace(/^penstock-(dev|prod)-/, ""),
        writes: actions.some((action) => !/^s3:(Get|List)[A-Za-z]*$/.test(action)),
        narrow: places.every((place) => place === models || place === `${models}/*`),
      },
    ];
  });
}

function exposed(resources: readonly Registered[], plan: CloudPlan): string[] {
  const open: string[] = [];
  for (const { name, inputs } of of(resources, "eks/cluster:Cluster")) {
    const { endpointPublicAccess, publicAccessCidrs } = recordOf(inputs["vpcConfig"]);
    const ranges = stringsOf(publicAccessCidrs);
    const wanted = plan.network.privateCluster ? endpointPublicAccess === false : ranges.length > 0;
    if (!wanted || ranges.includes("0.0.0.0/0")) open.push(name);
  }
  for (const { name, inputs } of of(resources, "rds/instance:Instance")) {
    if (inputs["publiclyAccessible"] !== false || inputs["storageEncrypted"] !== true) open.push(name);
  }
  for (const { name, inputs } of of(resources, "elasticache/replicationGroup:ReplicationGroup")) {
    if (inputs["transitEncryptionEnabled"] !== true || inputs["atRestEncryptionEnabled"] !== true) open.push(name);
  }
  for (const { name, inputs } of of(resources, "vpc/securityGroupIngressRule:SecurityGroupIngressRule")) {
    if (inputs["cidrIpv4"] === "0.0.0.0/0") open.push(name);
  }
  for (const { name, inputs } of of(resources, "ec2/subnet:Subnet")) {
    if (inputs["mapPublicIpOnLaunch"] !== false) open.push(name);
  }
  for (const { name, inputs } of of(resources, "ec2/launchTemplate:LaunchTemplate")) {
    const { httpTokens, httpPutResponseHopLimit } = recordOf(inputs["metadataOptions"]);
    if (httpTokens !== "required" || httpPutResponseHopLimit !== 1) open.push(name);
  }
  return open;
}
