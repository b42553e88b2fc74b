import type { CloudPlan } from "../../infra/plan/plan.ts";
import { findSize } from "../../infra/catalog/sizes.ts";
import { findingOn, levels, ofType, type Finding, type PlannedResource, type Rule } from "../rule.ts";
import { at, list, mustBe, recordOf, said } from "../values.ts";

const agentPool = "azure-native:containerservice:AgentPool";
const nodeGroup = "aws:eks/nodeGroup:NodeGroup";
const nodePool = "kubernetes:karpenter.sh/v1:NodePool";
const nodeClass = "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass";
const template = "aws:ec2/launchTemplate:LaunchTemplate";
const aks = "azure-native:containerservice:ManagedCluster";

/** What would make machines that no plan knows of. */
const loose = [
  "aws:ec2/instance:Instance",
  "aws:ec2/fleet:Fleet",
  "aws:ec2/spotInstanceRequest:SpotInstanceRequest",
  "aws:ec2/spotFleetRequest:SpotFleetRequest",
  "aws:autoscaling/group:Group",
  "azure-native:compute:VirtualMachine",
  "azure-native:compute:VirtualMachineScaleSet",
];

/** Machines. */
export const nodeRules: readonly Rule[] = [
  {
    id: "imdsv2",
    title: "Pods cannot reach their node's credentials",
    levels: levels.always,
    severity: "high",
    reason: "The metadata service hands out the node's identity to whoever can send it a request.",
    remedy: "httpTokens required and a hop limit of 1, in launch templates and EC2NodeClass.",
    judges: "resource",
    types: [template, nodeClass, "aws:ec2/instance:Instance"],
    judge({ type, properties }) {
      const path = type === nodeClass ? "spec.metadataOptions" : "metadataOptions";
      return [
        ...mustBe(properties, `${path}.httpTokens`, "required"),
        ...mustBe(properties, `${path}.httpPutResponseHopLimit`, 1),
      ];
    },
  },
  {
    id: "node-disks-encrypted",
    title: "Nodes' disks are encrypted and go with the node",
    levels: levels.always,
    severity: "high",
    reason: "A disk that stays costs money, and holds what its node saw.",
    remedy: "encrypted and deleteOnTermination in every block device mapping.",
    judges: "resource",
    types: [template, nodeClass],
    judge({ type, properties }) {
      const path = type === nodeClass ? "spec.blockDeviceMappings" : "blockDeviceMappings";
      const disks = list(properties, path);
      if (disks.length === 0) return [`${path} is ${said(at(properties, path))}: its disk is as the account has it`];
      return disks.flatMap((disk) => [
        ...mustBe(disk, "ebs.encrypted", true, "true"),
        ...mustBe(disk, "ebs.deleteOnTermination", true, "true"),
      ]);
    },
  },
  {
    id: "host-encryption",
    title: "Disks of AKS nodes are encrypted on their host too",
    levels: levels.saidInProd,
    severity: "low",
    reason: "Temporary disks and caches of disks are in plain text on the host otherwise.",
    remedy: "enableEncryptionAtHost, once the feature is registered in the subscription.",
    judges: "resource",
    types: [agentPool],
    judge: ({ properties }) => mustBe(properties, "enableEncryptionAtHost", true),
  },
  {
    id: "planned-nodes",
    title: "Every node is of a pool of the plan, and under its maximum",
    levels: levels.always,
    severity: "critical",
    reason: "Budgets are judged by the plan: a node beside it is beside every budget.",
    remedy: "Add the pool to the stack; give NodePools `limits` and pools the plan's maxNodes.",
    judges: "stack",
    judge: (resources, plan) => [
      ...ofType(resources, ...loose).map((each) => findingOn(each, "it is a machine that the plan does not know")),
      ...ofType(resources, agentPool, nodeGroup, nodePool).flatMap((each) => overPlan(each, plan)),
      ...ofType(resources, aks).flatMap((each) => poolsInside(each, plan)),
    ],
  },
  {
    id: "gpu-pool-hygiene",
    title: "GPU nodes are for pods that ask for GPUs",
    levels: levels.always,
    severity: "medium",
    reason: "A log collector on an H100 is enough to keep it from going away.",
    remedy: "The taint nvidia.com/gpu:NoSchedule, the label penstock.dev/pool, and a spot taint for spot nodes.",
    judges: "stack",
    judge: (resources, plan) =>
      ofType(resources, agentPool, nodeGroup, nodePool)
        .filter((each) => !isSystem(each))
        .flatMap((each) => hygiene(each, plan)),
  },
];

interface NodeMaker {
  readonly labels: unknown;
  /** As `key=value:effect`. */
  readonly taints: readonly string[];
  readonly size: unknown;
  readonly isSpot: boolean;
}

function makerOf({ type, properties }: PlannedResource): NodeMaker {
  if (type === agentPool) {
    return {
      labels: at(properties, "nodeLabels"),
      taints: list(properties, "nodeTaints").map(String),
      size: at(properties, "vmSize"),
      isSpot: at(properties, "scaleSetPriority") === "Spot",
    };
  }
  const isKarpenter = type === nodePool;
  const taints = list(properties, isKarpenter ? "spec.template.spec.taints" : "taints");
  const requirements = list(properties, "spec.template.spec.requirements");
  const required = (key: string): readonly unknown[] =>
    requirements.filter((each) => at(each, "key") === key).flatMap((each) => list(each, "values"));
  return {
    labels: at(properties, isKarpenter ? "spec.template.metadata.labels" : "labels"),
    taints: taints.map((taint) => `${String(at(taint, "key"))}=${String(at(taint, "value"))}:${effectOf(taint)}`),
    size: required("node.kubernetes.io/instance-type")[0],
    isSpot: isKarpenter
      ? required("karpenter.sh/capacity-type").includes("spot")
      : at(properties, "capacityType") === "SPOT",
  };
}

/** EKS writes effects in its own way. */
function effectOf(taint: unknown): string {
  const effect = String(at(taint, "effect"));
  return effect === "NO_SCHEDULE" ? "NoSchedule" : effect;
}

function variantOf(resource: PlannedResource): string | undefined {
  const found: unknown = Object(makerOf(resource).labels)["penstock.dev/variant"];
  return typeof found === "string" ? found : undefined;
}

function isSystem(resource: PlannedResource): boolean {
  return resource.type === nodeGroup && at(resource.properties, "nodeGroupName") === "system";
}

function overPlan(resource: PlannedResource, plan: CloudPlan): Finding[] {
  if (isSystem(resource)) {
    const most = at(resource.properties, "scalingConfig.maxSize");
    return isAtMost(most, [plan.cluster.system.maxNodes, "system nodes"], resource);
  }
  const variant = variantOf(resource);
  const pool = plan.pools.find(({ name }) => name === variant);
  if (pool === undefined) return [findingOn(resource, `the plan has no pool ${variant ?? "for it"}`)];
  if (resource.type === nodePool) {
    const gpus: unknown = Object(at(resource.properties, "spec.limits"))["nvidia.com/gpu"];
    if (gpus === undefined)
      return [findingOn(resource, "spec.limits has no nvidia.com/gpu: it makes nodes without end")];
    return isAtMost(Number(gpus), [pool.maxNodes * pool.gpu.count, "GPUs"], resource);
  }
  const path = resource.type === agentPool ? "maxCount" : "scalingConfig.maxSize";
  return isAtMost(at(resource.properties, path), [pool.maxNodes, "nodes"], resource);
}

/** Read back from Azure the cluster's list has the pools too that are resources of their own. */
function poolsInside(cluster: PlannedResource, plan: CloudPlan): Finding[] {
  return list(cluster.properties, "agentPoolProfiles").flatMap((profile) => {
    const size = at(profile, "vmSize");
    if (at(profile, "mode") !== "System") {
      const inside = { ...cluster, type: agentPool, properties: recordOf(profile) };
      return overPlan(inside, plan);
    }
    const isGpu = typeof size === "string" && findSize("azure", size) !== undefined;
    return [
      ...isAtMost(at(profile, "maxCount"), [plan.cluster.system.maxNodes, "system nodes"], cluster),
      ...(isGpu ? [findingOn(cluster, `its system pool has GPUs: ${said(size)}`)] : []),
    ];
  });
}

function isAtMost(value: unknown, [most, what]: readonly [number, string], resource: PlannedResource): Finding[] {
  return typeof value === "number" && value <= most
    ? []
    : [findingOn(resource, `${said(value)} ${what} at most; the plan has ${most}`)];
}

function hygiene(resource: PlannedResource, { cloud }: CloudPlan): Finding[] {
  const { labels: ofNodes, taints, isSpot } = makerOf(resource);
  const problems: string[] = [];
  if (!taints.some((taint) => /^nvidia\.com\/gpu=.*:NoSchedule$/.test(taint))) {
    problems.push("it has no taint nvidia.com/gpu:NoSchedule");
  }
  if (Object(ofNodes)["penstock.dev/pool"] === undefined) problems.push("its nodes have no label penstock.dev/pool");
  const spotTaint = cloud === "azure" ? "kubernetes.azure.com/scalesetpriority=spot" : "penstock.dev/spot=true";
  if (isSpot && !taints.includes(`${spotTaint}:NoSchedule`)) problems.push("it is spot without a spot taint");
  return problems.map((problem) => findingOn(resource, problem));
}
