import * as authorization from "@pulumi/azure-native/authorization/index.js";
import * as pulumi from "@pulumi/pulumi";
import type { Child } from "../lib/concern.ts";
import { uuidOf } from "../lib/names.ts";
import type { Scope } from "./scope.ts";

/** Built-in roles, by the ids that are the same in every tenant (learn.microsoft.com, Azure built-in roles). */
export const roles = {
  acrPull: "7f951dda-4ed3-4680-a7ca-43fe172d538d",
  aksClusterAdmin: "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b",
  blobReader: "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
  blobContributor: "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
  /** What AKS asks for on a capacity reservation group, and given on nothing else. */
  contributor: "b24988ac-6180-42a0-ab88-20f7382dd24c",
  grafanaAdmin: "22926164-76b3-42b3-bc55-97df8dab3e41",
  identityOperator: "f1a07417-d97a-45cb-824c-7a7467783830",
  monitoringReader: "b0d8363b-8ddd-447d-831f-62ca05bff136",
  networkContributor: "4d97b98b-1d4f-4787-a291-c67834d212e7",
} as const;

/** Who may do what, where. */
export interface Grant {
  readonly role: keyof typeof roles;
  /** Resource id: the role holds there and below. */
  readonly on: pulumi.Input<string>;
  readonly to: pulumi.Input<string>;
  /** A service principal where an identity was just made: Azure then does not look it up in the directory. */
  readonly kind: "ServicePrincipal" | "Group" | "unknown";
}

/** A role assignment. Its id follows from who, what and where, so that a second deployment finds the first one's. */
export function grant(
  name: string,
  { role, on, to, kind }: Grant,
  { scope, child }: { scope: Scope; child: Child },
): pulumi.Resource {
  const definition = roles[role];
  return new authorization.RoleAssignment(
    name,
    {
      roleAssignmentName: pulumi.all([on, to]).apply(([where, who]) => uuidOf(where.toLowerCase(), who, definition)),
      scope: on,
      principalId: to,
      ...(kind === "unknown" ? {} : { principalType: kind }),
      roleDefinitionId: pulumi.interpolate`/subscriptions/${scope.subscriptionId}/providers/Microsoft.Authorization/roleDefinitions/${definition}`,
    },
    child,
  );
}
