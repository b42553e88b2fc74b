import { namespaces } from "../../infra/cloud.ts";
import { findingOn, levels, ofType, type Rule } from "../rule.ts";
import { at, list, said } from "../values.ts";

const everybody: ReadonlySet<unknown> = new Set(["0.0.0.0/0", "::/0", "*", "Internet", "any"]);

/** Who may come in. */
export const networkRules: readonly Rule[] = [
  {
    id: "api-server-not-world",
    title: "The Kubernetes API is not open to the world",
    levels: levels.always,
    severity: "critical",
    reason: "Its next hole would be everybody's way in.",
    remedy: "`network.privateCluster: true`, or name ranges in apiAllowedAddresses.",
    judges: "resource",
    types: ["azure-native:containerservice:ManagedCluster", "aws:eks/cluster:Cluster"],
    judge({ type, properties }) {
      const isAks = type.startsWith("azure");
      const isPrivate = isAks
        ? at(properties, "apiServerAccessProfile.enablePrivateCluster") === true
        : at(properties, "vpcConfig.endpointPublicAccess") === false;
      if (isPrivate) return [];
      const path = isAks ? "apiServerAccessProfile.authorizedIPRanges" : "vpcConfig.publicAccessCidrs";
      const ranges = list(properties, path);
      if (ranges.length === 0) return [`${path} is ${said(at(properties, path))}, and the API is public`];
      return ranges.filter((range) => everybody.has(range)).map((range) => `${path} has ${said(range)}`);
    },
  },
  {
    id: "no-open-ingress",
    title: "No rule of a firewall lets everybody in",
    levels: levels.always,
    severity: "critical",
    reason: "The endpoint is a load balancer of Kubernetes; nothing else has a reason to be reached from everywhere.",
    remedy: "Name ranges or security groups.",
    judges: "resource",
    types: [
      "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
      "aws:ec2/securityGroupRule:SecurityGroupRule",
      "aws:ec2/securityGroup:SecurityGroup",
      "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
      "azure-native:network:NetworkSecurityGroup",
      "azure-native:network:SecurityRule",
    ],
    judge: ({ type, properties }) => {
      if (type.startsWith("azure")) {
        const inside = list(properties, "securityRules");
        return (inside.length > 0 ? inside : [properties]).flatMap(openToAll);
      }
      if (at(properties, "type") === "egress") return [];
      const rules = [properties, ...list(properties, "ingress")];
      return rules
        .flatMap((rule) => [
          at(rule, "cidrIpv4"),
          at(rule, "cidrIpv6"),
          ...list(rule, "cidrBlocks"),
          ...list(rule, "ipv6CidrBlocks"),
        ])
        .filter((range) => everybody.has(range))
        .map((range) => `it lets ${said(range)} in`);
    },
  },
  {
    id: "network-policy-default-deny",
    title: "Pods of the serving namespace talk to nobody unless a policy says so",
    levels: levels.strictInProd,
    severity: "medium",
    reason: "An engine runs code of others; without a policy it reaches every service of the cluster.",
    remedy: "A NetworkPolicy without rules for all pods, Ingress and Egress.",
    judges: "stack",
    judge(resources) {
      const guarded = new Set(
        ofType(resources, "kubernetes:networking.k8s.io/v1:NetworkPolicy")
          .filter(({ properties }) => deniesAll(properties))
          .map(({ properties }) => at(properties, "metadata.namespace")),
      );
      return ofType(resources, "kubernetes:core/v1:Namespace")
        .filter(
          ({ properties }) =>
            at(properties, "metadata.name") === namespaces.serving && !guarded.has(namespaces.serving),
        )
        .map((each) => findingOn(each, "it has no policy that denies everything"));
    },
  },
  {
    id: "one-public-address",
    title: "Only the gateway has a load balancer",
    levels: levels.always,
    severity: "high",
    reason: "Agents and stores trust whoever reaches them inside the cluster.",
    remedy: "Services other than the gateway's are of type ClusterIP.",
    judges: "resource",
    types: ["kubernetes:core/v1:Service"],
    judge({ properties }) {
      const type = at(properties, "spec.type");
      const name = at(properties, "metadata.name");
      const isPublic = type === "LoadBalancer" || type === "NodePort";
      return isPublic && name !== "penstock-gateway" ? [`its type is ${said(type)}`] : [];
    },
  },
];

function openToAll(rule: unknown): string[] {
  const isIngress = at(rule, "access") === "Allow" && at(rule, "direction") === "Inbound";
  const sources = [at(rule, "sourceAddressPrefix"), ...list(rule, "sourceAddressPrefixes")];
  return isIngress
    ? sources.filter((source) => everybody.has(source)).map((source) => `it lets ${said(source)} in`)
    : [];
}

function deniesAll(properties: unknown): boolean {
  const isForAll = Object.keys(Object(at(properties, "spec.podSelector"))).length === 0;
  const types = list(properties, "spec.policyTypes");
  const rules = [...list(properties, "spec.ingress"), ...list(properties, "spec.egress")];
  return isForAll && types.includes("Ingress") && types.includes("Egress") && rules.length === 0;
}
