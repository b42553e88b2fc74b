import * as pulumi from "@pulumi/pulumi";
import type { Statement } from "./policies.ts";
import type { Scope } from "./scope.ts";

type Condition = NonNullable<Statement["Condition"]>;

/**
 * What Karpenter 1.14 may do: make, tag and remove machines that carry this cluster's tags, and no others; hand its nodes
 * their role, and no other; read what there is. After the policy in its own documentation (reference/cloudformation).
 */
export function karpenterStatements(
  scope: Scope,
  arns: { readonly queueArn: pulumi.Output<string>; readonly nodeRoleArn: pulumi.Output<string> },
): readonly Statement[] {
  return [...machines(scope), ...instanceProfiles(scope, arns.nodeRoleArn), ...reading(scope, arns.queueArn)];
}

/** Kinds of EC2 resources: of this account, or images and snapshots, which are anybody's. */
function ec2Arns({ plan: { region } }: Scope, kinds: readonly string[]): string[] {
  return kinds.map((kind) =>
    kind === "image" || kind === "snapshot" ? `arn:aws:ec2:${region}::${kind}/*` : `arn:aws:ec2:${region}:*:${kind}/*`,
  );
}

/** Holds of what carries this cluster's tags already (`ResourceTag`), or is made with them (`RequestTag`). */
function ours(scope: Scope, where: "ResourceTag" | "RequestTag"): Condition {
  const { name } = scope.plan.cluster;
  return {
    StringEquals: {
      [`aws:${where}/kubernetes.io/cluster/${name}`]: "owned",
      ...(where === "RequestTag" ? { "aws:RequestTag/eks:eks-cluster-name": name } : {}),
    },
    StringLike: { [`aws:${where}/karpenter.sh/nodepool`]: "*" },
  };
}

const made = ["fleet", "instance", "volume", "network-interface", "launch-template", "spot-instances-request"];
const used = ["image", "snapshot", "security-group", "subnet", "capacity-reservation", "placement-group"];

function machines(scope: Scope): readonly Statement[] {
  const start = ["ec2:RunInstances", "ec2:CreateFleet"];
  const making = ours(scope, "RequestTag");
  const own = ours(scope, "ResourceTag");
  return [
    { Sid: "StartFrom", Action: start, Resource: ec2Arns(scope, used) },
    { Sid: "StartFromOwnTemplates", Action: start, Resource: ec2Arns(scope, ["launch-template"]), Condition: own },
    {
      Sid: "Start",
      Action: [...start, "ec2:CreateLaunchTemplate"],
      Resource: ec2Arns(scope, made),
      Condition: making,
    },
    {
      Sid: "TagWhatItStarts",
      Action: "ec2:CreateTags",
      Resource: ec2Arns(scope, made),
      Condition: {
        ...making,
        StringEquals: {
          ...making["StringEquals"],
          "ec2:CreateAction": ["RunInstances", "CreateFleet", "CreateLaunchTemplate"],
        },
      },
    },
    {
      Sid: "TagOwnMachines",
      Action: "ec2:CreateTags",
      Resource: ec2Arns(scope, ["instance"]),
      Condition: {
        ...own,
        StringEqualsIfExists: { "aws:RequestTag/eks:eks-cluster-name": scope.plan.cluster.name },
        "ForAllValues:StringEquals": { "aws:TagKeys": ["eks:eks-cluster-name", "karpenter.sh/nodeclaim", "Name"] },
      },
    },
    {
      Sid: "RemoveOwn",
      Action: ["ec2:TerminateInstances", "ec2:DeleteLaunchTemplate"],
      Resource: ec2Arns(scope, ["instance", "launch-template"]),
      Condition: own,
    },
  ];
}

function instanceProfiles(scope: Scope, nodeRoleArn: pulumi.Output<string>): readonly Statement[] {
  const { cluster, region } = scope.plan;
  const profiles = pulumi.interpolate`arn:aws:iam::${scope.accountId}:instance-profile/*`;
  const tagged = (
    where: "ResourceTag" | "RequestTag",
  ): Record<"StringEquals" | "StringLike", Record<string, string>> => ({
    StringEquals: {
      [`aws:${where}/kubernetes.io/cluster/${cluster.name}`]: "owned",
      [`aws:${where}/topology.kubernetes.io/region`]: region,
      ...(where === "RequestTag" ? { "aws:RequestTag/eks:eks-cluster-name": cluster.name } : {}),
    },
    StringLike: { [`aws:${where}/karpenter.k8s.aws/ec2nodeclass`]: "*" },
  });
  const making = tagged("RequestTag");
  const own = tagged("ResourceTag");
  return [
    {
      Sid: "GiveNodesTheirRole",
      Action: "iam:PassRole",
      Resource: nodeRoleArn,
      Condition: { StringEquals: { "iam:PassedToService": "ec2.amazonaws.com" } },
    },
    { Sid: "MakeProfiles", Action: "iam:CreateInstanceProfile", Resource: profiles, Condition: making },
    {
      Sid: "TagOwnProfiles",
      Action: "iam:TagInstanceProfile",
      Resource: profiles,
      Condition: {
        StringEquals: { ...own.StringEquals, ...making.StringEquals },
        StringLike: { ...own.StringLike, ...making.StringLike },
      },
    },
    {
      Sid: "ChangeOwnProfiles",
      Action: ["iam:AddRoleToInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:DeleteInstanceProfile"],
      Resource: profiles,
      Condition: own,
    },
    { Sid: "ReadProfiles", Action: "iam:GetInstanceProfile", Resource: profiles },
    // Lists know no single resource.
    { Sid: "ListProfiles", Action: "iam:ListInstanceProfiles", Resource: "*" },
  ];
}

const readable = [
  "CapacityReservations",
  "Images",
  "InstanceStatus",
  "InstanceTypeOfferings",
  "InstanceTypes",
  "Instances",
  "LaunchTemplates",
  "PlacementGroups",
  "SecurityGroups",
  "SpotPriceHistory",
  "Subnets",
].map((what) => `ec2:Describe${what}`);

function reading({ plan: { cluster, region }, accountId }: Scope, queueArn: pulumi.Output<string>): Statement[] {
  return [
    {
      Sid: "Read",
      Action: readable,
      Resource: "*",
      Condition: { StringEquals: { "aws:RequestedRegion": region } },
    },
    { Sid: "ReadImages", Action: "ssm:GetParameter", Resource: `arn:aws:ssm:${region}::parameter/aws/service/*` },
    { Sid: "ReadPrices", Action: "pricing:GetProducts", Resource: "*" },
    {
      Sid: "FindCluster",
      Action: "eks:DescribeCluster",
      Resource: pulumi.interpolate`arn:aws:eks:${region}:${accountId}:cluster/${cluster.name}`,
    },
    {
      Sid: "HearNotices",
      Action: ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"],
      Resource: queueArn,
    },
  ];
}
