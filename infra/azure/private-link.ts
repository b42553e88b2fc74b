import * as network from "@pulumi/azure-native/network/index.js";
import * as privatedns from "@pulumi/azure-native/privatedns/index.js";
import type * as pulumi from "@pulumi/pulumi";
import type { Child } from "../lib/concern.ts";
import type { Network } from "./network.ts";
import type { Scope } from "./scope.ts";

/** What private links are made with. */
export interface LinkContext {
  readonly scope: Scope;
  readonly network: Network;
  readonly child: Child;
}

/** A name zone that only the network sees. `link`: once it is there, the zone is in use. */
export function privateZone(
  name: string,
  zoneName: string,
  { scope, network: { id }, child }: LinkContext,
): { readonly zone: privatedns.PrivateZone; readonly link: pulumi.Resource } {
  const zone = new privatedns.PrivateZone(
    `${name}-zone`,
    {
      resourceGroupName: scope.place.resourceGroupName,
      location: "Global",
      privateZoneName: zoneName,
      tags: scope.tags,
    },
    child,
  );
  const link = new privatedns.VirtualNetworkLink(
    `${name}-zone-link`,
    {
      resourceGroupName: scope.place.resourceGroupName,
      location: "Global",
      privateZoneName: zone.name,
      virtualNetworkLinkName: scope.plan.prefix,
      virtualNetwork: { id },
      registrationEnabled: false,
      tags: scope.tags,
    },
    child,
  );
  return { zone, link };
}

/** An address inside the network for a service, and its public name resolved to that address. */
export function privateEndpoint(
  name: string,
  target: { readonly id: pulumi.Input<string>; readonly group: string; readonly zoneName: string },
  context: LinkContext,
): readonly pulumi.Resource[] {
  const { scope, child } = context;
  const endpoint = new network.PrivateEndpoint(
    `${name}-endpoint`,
    {
      ...scope.place,
      privateEndpointName: `${scope.plan.prefix}-${name}`,
      subnet: { id: context.network.endpoints.id },
      privateLinkServiceConnections: [{ name, privateLinkServiceId: target.id, groupIds: [target.group] }],
      tags: scope.tags,
    },
    child,
  );
  const { zone, link } = privateZone(name, target.zoneName, context);
  const names = new network.PrivateDnsZoneGroup(
    `${name}-names`,
    {
      resourceGroupName: scope.place.resourceGroupName,
      privateEndpointName: endpoint.name,
      privateDnsZoneGroupName: name,
      privateDnsZoneConfigs: [{ name, privateDnsZoneId: zone.id }],
    },
    child,
  );
  return [names, link];
}
