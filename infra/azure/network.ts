import * as network from "@pulumi/azure-native/network/index.js";
import type * as pulumi from "@pulumi/pulumi";
import { partOfRange } from "../lib/cidr.ts";
import { concern, type Child } from "../lib/concern.ts";
import type { Scope } from "./scope.ts";

/** Where nodes, private endpoints and PostgreSQL are, and the address that they are seen with from outside. */
export interface Network {
  readonly id: pulumi.Output<string>;
  readonly nodes: network.Subnet;
  readonly endpoints: network.Subnet;
  /** Given to PostgreSQL alone; null where it runs in the cluster. */
  readonly postgres: network.Subnet | null;
  readonly egressAddress: pulumi.Output<string>;
  /** The cache is reached through a private endpoint, or else through the node subnet's service endpoint. */
  readonly privateCache: boolean;
}

/** Service endpoint of the node subnet to storage: free, where a private endpoint costs by the GB. */
const storageService = "Microsoft.Storage";

/** The network: one half for nodes; small parts for private endpoints and PostgreSQL. Pods have addresses of their own. */
export function makeNetwork(scope: Scope): Network {
  const { plan } = scope;
  const privateCache = plan.environment === "prod" || plan.network.endpoints === "full";
  return concern("azure", "network", (child) => {
    const vnet = new network.VirtualNetwork(
      "vnet",
      {
        ...scope.place,
        virtualNetworkName: `${plan.prefix}-vnet`,
        addressSpace: { addressPrefixes: [plan.network.cidr] },
        tags: scope.tags,
      },
      child,
    );
    const { gateway, address } = makeEgress(scope, child);
    const ranges = rangesOf(plan.network.cidr);
    const subnet = (name: string, { after, ...args }: SubnetOptions): network.Subnet =>
      new network.Subnet(
        name,
        {
          resourceGroupName: scope.place.resourceGroupName,
          virtualNetworkName: vnet.name,
          subnetName: name,
          defaultOutboundAccess: false,
          ...args,
        },
        // A network takes one change at a time.
        { ...child, ...(after === undefined ? {} : { dependsOn: after }) },
      );
    const nodes = subnet("nodes", {
      addressPrefix: ranges.nodes,
      natGateway: { id: gateway.id },
      ...(privateCache ? {} : { serviceEndpoints: [{ service: storageService }] }),
    });
    const endpoints = subnet("endpoints", { addressPrefix: ranges.endpoints, after: nodes });
    const postgres =
      plan.postgres.mode === "managed"
        ? subnet("postgres", { addressPrefix: ranges.postgres, delegations: [postgresDelegation], after: endpoints })
        : null;
    return { id: vnet.id, nodes, endpoints, postgres, egressAddress: address, privateCache };
  });
}

type SubnetOptions = Pick<network.SubnetArgs, "addressPrefix" | "natGateway" | "serviceEndpoints" | "delegations"> & {
  readonly after?: pulumi.Resource;
};

const postgresDelegation = {
  name: "postgres",
  serviceName: "Microsoft.DBforPostgreSQL/flexibleServers",
} as const;

/** Nodes leave through one address of ours, so that others can allow it. */
function makeEgress(
  scope: Scope,
  child: Child,
): { readonly gateway: network.NatGateway; readonly address: pulumi.Output<string> } {
  const address = new network.PublicIPAddress(
    "egress",
    {
      ...scope.place,
      publicIpAddressName: `${scope.plan.prefix}-egress`,
      sku: { name: network.PublicIPAddressSkuName.Standard },
      publicIPAllocationMethod: network.IPAllocationMethod.Static,
      tags: scope.tags,
    },
    child,
  );
  const gateway = new network.NatGateway(
    "nat",
    {
      ...scope.place,
      natGatewayName: `${scope.plan.prefix}-nat`,
      sku: { name: network.NatGatewaySkuName.Standard },
      publicIpAddresses: [{ id: address.id }],
      tags: scope.tags,
    },
    child,
  );
  return { gateway, address: address.ipAddress.apply((known) => known ?? "") };
}

/** Half of the range for nodes, then a 256th each for private endpoints and PostgreSQL. */
function rangesOf(cidr: string): Readonly<Record<"nodes" | "endpoints" | "postgres", string>> {
  const length = Number(cidr.split("/")[1]);
  return {
    nodes: partOfRange(cidr, { prefixLength: length + 1, index: 0 }),
    endpoints: partOfRange(cidr, { prefixLength: length + 8, index: 128 }),
    postgres: partOfRange(cidr, { prefixLength: length + 8, index: 129 }),
  };
}
