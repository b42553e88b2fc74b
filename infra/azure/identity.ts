import * as managedidentity from "@pulumi/azure-native/managedidentity/index.js";
import type * as pulumi from "@pulumi/pulumi";
import { namespaces, serviceAccountNames, type CloudOutputs, type ServiceAccountName } from "../cloud.ts";
import { concern, type Child } from "../lib/concern.ts";
import type { Cache } from "./cache.ts";
import type { Cluster } from "./cluster.ts";
import { grant, type Grant } from "./roles.ts";
import type { Scope } from "./scope.ts";

/** What each service account may do with the container of models. Whoever needs nothing of Azure has no identity there. */
const rights = {
  agent: "blobReader",
  "model-push": "blobContributor",
  gateway: null,
  karpenter: null,
  prometheus: null,
} as const satisfies Record<ServiceAccountName, Grant["role"] | null>;

/** Service accounts with their identities, and what must be there before their pods ask for a token. */
export interface Identities {
  readonly serviceAccounts: CloudOutputs["serviceAccounts"];
  readonly ready: readonly pulumi.Resource[];
}

/** Identities for pods: a token of the cluster is exchanged for one of Entra ID, so there is no secret to keep. */
export function makeIdentities(
  scope: Scope,
  { cluster, cache }: { readonly cluster: Cluster; readonly cache: Cache },
): Identities {
  return concern("azure", "identity", (child) => {
    const ready: pulumi.Resource[] = [];
    const annotationsOf = (name: ServiceAccountName): Record<string, pulumi.Input<string>> => {
      const role = rights[name];
      if (role === null) return {};
      const identity = federated(name, { scope, cluster, child });
      const on = { on: cache.containerId, to: identity.principalId, kind: "ServicePrincipal" } as const;
      ready.push(...identity.ready, grant(`${name}-${role}`, { role, ...on }, { scope, child }));
      return { "azure.workload.identity/client-id": identity.clientId };
    };
    const accounts = serviceAccountNames.map((name) => [name, { annotations: annotationsOf(name) }] as const);
    // One entry for each name: the list is the type's own.
    const serviceAccounts = Object.fromEntries(accounts) as CloudOutputs["serviceAccounts"];
    return { serviceAccounts, ready };
  });
}

interface Federated {
  readonly principalId: pulumi.Output<string>;
  readonly clientId: pulumi.Output<string>;
  readonly ready: readonly pulumi.Resource[];
}

/** An identity that only the service account's pods can take on. */
function federated(
  name: ServiceAccountName,
  { scope, cluster, child }: { readonly scope: Scope; readonly cluster: Cluster; readonly child: Child },
): Federated {
  const identity = new managedidentity.UserAssignedIdentity(
    `${name}-identity`,
    { ...scope.place, resourceName: `${scope.plan.prefix}-${name}`, tags: scope.tags },
    child,
  );
  const credential = new managedidentity.FederatedIdentityCredential(
    `${name}-federation`,
    {
      resourceGroupName: scope.place.resourceGroupName,
      resourceName: identity.name,
      federatedIdentityCredentialResourceName: scope.plan.cluster.name,
      issuer: cluster.issuer,
      subject: `system:serviceaccount:${namespaces.serving}:${name}`,
      audiences: ["api://AzureADTokenExchange"],
    },
    child,
  );
  return { principalId: identity.principalId, clientId: identity.clientId, ready: [credential] };
}
