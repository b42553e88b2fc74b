import * as ec2 from "@pulumi/aws/ec2/index.js";
import type * as pulumi from "@pulumi/pulumi";
import { partOfRange } from "../lib/cidr.ts";
import { makeEndpoints } from "./endpoints.ts";
import { part, named, type AwsPlan, type Child, type Context, type Scope } from "./scope.ts";

/** Where nodes are, and what must be there before one of them starts. */
export interface Network {
  readonly vpcId: pulumi.Output<string>;
  /** Private subnets by zone: nodes, pods, managed stores. */
  readonly subnets: ReadonlyMap<string, ec2.Subnet>;
  /** Ways out, and to S3. */
  readonly ready: readonly pulumi.Resource[];
}

/** Ids of the private subnets in some of the zones. */
export function subnetsIn({ subnets }: Network, zones: readonly string[]): pulumi.Output<string>[] {
  return zones.flatMap((zone) => subnets.get(zone)?.id ?? []);
}

/** The network: per zone a private subnet for nodes, and a public one for NAT and the load balancer. */
export function makeNetwork(scope: Scope): Network {
  const { plan } = scope;
  return part(scope, "network", (child) => {
    const context = { scope, child };
    const vpc = new ec2.Vpc(
      "vpc",
      {
        cidrBlock: plan.network.cidr,
        enableDnsHostnames: true,
        enableDnsSupport: true,
        tags: named(scope, "vpc"),
      },
      child,
    );
    const { gateways, ready } = makeEgress(vpc, context);
    const tables = new Map(plan.zones.map((zone) => [zone, routeTable(`private-${zone}`, vpc, context)]));
    const routes = [...tables].map(([zone, table]) =>
      wayOut(
        `private-${zone}`,
        { routeTableId: table.id, natGatewayId: (gateways.get(zone) ?? firstOf(gateways)).id },
        child,
      ),
    );
    const subnets = new Map(plan.zones.map((zone) => [zone, subnet("private", zone, { vpc, context })]));
    const links = [...subnets].map(([zone, { id }]) =>
      association(`private-${zone}`, { subnetId: id, routeTableId: firstOf(tables, zone).id }, child),
    );
    const endpoints = makeEndpoints({ vpc, tables: [...tables.values()], subnets: [...subnets.values()] }, context);
    return {
      vpcId: vpc.id,
      subnets,
      ready: [...ready, ...routes, ...links, ...endpoints, silentDefault(vpc, context)],
    };
  });
}

/** What nobody named a security group for can talk to nobody. */
function silentDefault({ id }: ec2.Vpc, { scope, child }: Context): ec2.DefaultSecurityGroup {
  return new ec2.DefaultSecurityGroup(
    "default",
    { vpcId: id, ingress: [], egress: [], tags: named(scope, "unused") },
    child,
  );
}

/** The value of a key, or of the first one where no key is given. */
function firstOf<Value>(values: ReadonlyMap<string, Value>, key?: string): Value {
  const value = key === undefined ? values.values().next().value : values.get(key);
  if (value === undefined) throw new Error("The plan names no zone.");
  return value;
}

/** Ways to the internet. */
interface Egress {
  readonly gateways: ReadonlyMap<string, ec2.NatGateway>;
  readonly ready: readonly pulumi.Resource[];
}

/**
 * NAT gateways by zone. In production each zone has its own, so that one zone's failure is not the others'; in development
 * there is one for all (0.045 USD an hour saved for each).
 */
function makeEgress(vpc: ec2.Vpc, context: Context): Egress {
  const { scope, child } = context;
  const { plan } = scope;
  const internet = new ec2.InternetGateway("internet", { vpcId: vpc.id, tags: named(scope, "internet") }, child);
  const table = routeTable("public", vpc, context);
  const subnets = plan.zones.map((zone) => ({ zone, subnetId: subnet("public", zone, { vpc, context }).id }));
  const ready = [
    wayOut("public", { routeTableId: table.id, gatewayId: internet.id }, child),
    ...subnets.map(({ zone, subnetId }) => association(`public-${zone}`, { subnetId, routeTableId: table.id }, child)),
  ];
  const withNat = plan.environment === "prod" ? subnets : subnets.slice(0, 1);
  const gateways = withNat.map(({ zone, subnetId }) => {
    const address = new ec2.Eip(`nat-${zone}`, { domain: "vpc", tags: named(scope, `nat-${zone}`) }, child);
    const gateway = new ec2.NatGateway(
      `nat-${zone}`,
      { subnetId, allocationId: address.id, tags: named(scope, `nat-${zone}`) },
      { ...child, dependsOn: ready },
    );
    return [zone, gateway] as const;
  });
  return { gateways: new Map(gateways), ready };
}

/** Tags by which load balancers and Karpenter find their subnets. */
function subnetTags(kind: "private" | "public", { cluster }: AwsPlan): Record<string, string> {
  const shared = { [`kubernetes.io/cluster/${cluster.name}`]: "shared" };
  return kind === "public"
    ? { ...shared, "kubernetes.io/role/elb": "1" }
    : { ...shared, "kubernetes.io/role/internal-elb": "1", "karpenter.sh/discovery": cluster.name };
}

function subnet(
  kind: "private" | "public",
  zone: string,
  { vpc, context: { scope, child } }: { readonly vpc: ec2.Vpc; readonly context: Context },
): ec2.Subnet {
  const { plan } = scope;
  return new ec2.Subnet(
    `${kind}-${zone}`,
    {
      vpcId: vpc.id,
      availabilityZone: zone,
      cidrBlock: rangeOf(kind, plan.zones.indexOf(zone), plan.network.cidr),
      mapPublicIpOnLaunch: false,
      tags: { ...named(scope, `${kind}-${zone}`), ...subnetTags(kind, plan) },
    },
    child,
  );
}

/** An eighth of the range for nodes and pods of each zone, up to four; a 256th for what is public there. */
function rangeOf(kind: "private" | "public", zone: number, cidr: string): string {
  const length = Number(cidr.split("/")[1]);
  return kind === "private"
    ? partOfRange(cidr, { prefixLength: length + 3, index: zone })
    : partOfRange(cidr, { prefixLength: length + 8, index: 128 + zone });
}

function routeTable(name: string, vpc: ec2.Vpc, { scope, child }: Context): ec2.RouteTable {
  return new ec2.RouteTable(name, { vpcId: vpc.id, tags: named(scope, name) }, child);
}

function wayOut(name: string, to: Omit<ec2.RouteArgs, "destinationCidrBlock">, child: Child): ec2.Route {
  return new ec2.Route(name, { destinationCidrBlock: "0.0.0.0/0", ...to }, child);
}

function association(
  name: string,
  between: Required<Pick<ec2.RouteTableAssociationArgs, "subnetId" | "routeTableId">>,
  child: Child,
): ec2.RouteTableAssociation {
  return new ec2.RouteTableAssociation(name, between, child);
}
