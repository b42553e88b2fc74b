import * as storage from "@pulumi/azure-native/storage/index.js";
import type * as pulumi from "@pulumi/pulumi";
import { partOfRange } from "../lib/cidr.ts";
import { concern, type Child } from "../lib/concern.ts";
import type { Network } from "./network.ts";
import { privateEndpoint } from "./private-link.ts";
import { grant } from "./roles.ts";
import type { Scope } from "./scope.ts";

/** Where models are kept for good. */
export interface Cache {
  readonly account: pulumi.Output<string>;
  /** Resource id: roles are given here, not on the account. */
  readonly containerId: pulumi.Output<string>;
  /** Without these nobody can reach it. */
  readonly ready: readonly pulumi.Resource[];
}

/** Azure keeps what was deleted for a year at most. */
const maxSoftDeleteDays = 365;

/** The storage account with its container. Nobody reaches it with a key, and from outside nobody but named addresses in dev. */
export function makeCache(scope: Scope, network: Network): Cache {
  const { cache } = scope.plan;
  return concern("azure", "cache", (child) => {
    const account = new storage.StorageAccount("cache", accountArgs(scope, network), { ...child, ...scope.stateful });
    const container = new storage.BlobContainer(
      "models",
      {
        resourceGroupName: scope.place.resourceGroupName,
        accountName: account.name,
        containerName: cache.container,
        publicAccess: "None",
      },
      { ...child, ...scope.stateful },
    );
    const target = { id: account.id, group: "blob", zoneName: "privatelink.blob.core.windows.net" };
    return {
      account: account.name,
      containerId: container.id,
      ready: [
        container,
        keepVersions(account, { scope, child }),
        ...(network.privateCache ? privateEndpoint("cache", target, { scope, network, child }) : []),
        ...peopleWhoWrite(container, { scope, child }),
      ],
    };
  });
}

function accountArgs({ plan, place, tags }: Scope, network: Network): storage.StorageAccountArgs {
  const { account, premium, redundancy } = plan.cache;
  return {
    ...place,
    accountName: account,
    kind: premium ? "BlockBlobStorage" : "StorageV2",
    sku: { name: `${premium ? "Premium" : "Standard"}_${redundancy}` },
    ...(premium ? {} : { accessTier: storage.AccessTier.Hot }),
    allowBlobPublicAccess: false,
    allowSharedKeyAccess: false,
    allowCrossTenantReplication: false,
    allowedCopyScope: "AAD",
    defaultToOAuthAuthentication: true,
    isLocalUserEnabled: false,
    isSftpEnabled: false,
    enableHttpsTrafficOnly: true,
    minimumTlsVersion: "TLS1_2",
    publicNetworkAccess: network.privateCache ? "Disabled" : "Enabled",
    networkRuleSet: {
      defaultAction: storage.DefaultAction.Deny,
      bypass: "None",
      virtualNetworkRules: network.privateCache ? [] : [{ virtualNetworkResourceId: network.nodes.id }],
      // Whose kubectl reaches the cluster also fills the cache; who it is, a token of Entra ID still has to say.
      ipRules: network.privateCache ? [] : addressRules(plan.network.apiAllowedAddresses),
    },
    tags,
  };
}

interface Context {
  readonly scope: Scope;
  readonly child: Child;
}

/** What was overwritten or deleted can be had back for as long as the plan says, and then costs nothing. */
function keepVersions(account: storage.StorageAccount, { scope, child }: Context): pulumi.Resource {
  const of = { resourceGroupName: scope.place.resourceGroupName, accountName: account.name };
  const days = scope.plan.cache.keepOldVersionsDays;
  const softDelete = { enabled: true, days: Math.min(days, maxSoftDeleteDays) };
  const blobs = new storage.BlobServiceProperties(
    "blobs",
    {
      ...of,
      blobServicesName: "default",
      isVersioningEnabled: true,
      deleteRetentionPolicy: softDelete,
      containerDeleteRetentionPolicy: softDelete,
    },
    child,
  );
  const removeVersions = {
    name: "remove-old-versions",
    type: "Lifecycle",
    enabled: true,
    definition: {
      filters: { blobTypes: ["blockBlob"] },
      actions: { version: { delete: { daysAfterCreationGreaterThan: days } } },
    },
  };
  return new storage.ManagementPolicy(
    "lifecycle",
    { ...of, managementPolicyName: "default", policy: { rules: [removeVersions] } },
    { ...child, dependsOn: blobs },
  );
}

/** Admins, or whoever deploys where none are named, may fill the cache by hand. Pods that may are in identity.ts. */
function peopleWhoWrite(container: storage.BlobContainer, context: Context): readonly pulumi.Resource[] {
  const { plan, deployerId } = context.scope;
  const write = { role: "blobContributor", on: container.id } as const;
  if (plan.cluster.admins.length === 0)
    return [grant("deployer-writes", { ...write, to: deployerId, kind: "unknown" }, context)];
  return plan.cluster.admins.map((group) =>
    grant(`admins-write-${group}`, { ...write, to: group, kind: "Group" }, context),
  );
}

/** Azure takes single addresses and ranges of four or more here. */
function addressRules(ranges: readonly string[]): { readonly iPAddressOrRange: string }[] {
  return ranges
    .flatMap((range) =>
      range.endsWith("/31") ? [0, 1].map((index) => partOfRange(range, { prefixLength: 32, index })) : [range],
    )
    .map((range) => ({ iPAddressOrRange: range.replace(/\/32$/, "") }));
}
