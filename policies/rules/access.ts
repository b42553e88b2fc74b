import { findingOn, levels, ofType, type Rule } from "../rule.ts";
import { at, mustBe } from "../values.ts";

const aks = "azure-native:containerservice:ManagedCluster";
const eks = "aws:eks/cluster:Cluster";

/** How people and pods prove who they are. */
export const accessRules: readonly Rule[] = [
  {
    id: "cluster-auth",
    title: "People come into the cluster as the cloud knows them",
    levels: levels.strictInProd,
    severity: "high",
    reason: "A certificate of a cluster cannot be taken back, and does not say who holds it.",
    remedy: "AKS: no local accounts, Entra ID with Azure RBAC. EKS: access entries alone, and no admin by creation.",
    judges: "resource",
    types: [aks, eks],
    judge: ({ type, properties }) =>
      type === aks
        ? [
            ...mustBe(properties, "disableLocalAccounts", true),
            ...mustBe(properties, "aadProfile.managed", true),
            ...mustBe(properties, "aadProfile.enableAzureRBAC", true),
          ]
        : [
            ...mustBe(properties, "accessConfig.authenticationMode", "API"),
            ...mustBe(properties, "accessConfig.bootstrapClusterCreatorAdminPermissions", false),
          ],
  },
  {
    id: "workload-identity",
    title: "Pods have identities of the cloud",
    levels: levels.always,
    severity: "high",
    reason: "With them there is no key to leak, and each pod may do only its own work.",
    remedy: "AKS: oidcIssuerProfile and workloadIdentity. EKS: the add-on eks-pod-identity-agent.",
    judges: "stack",
    judge: (resources) => [
      ...ofType(resources, aks).flatMap((each) =>
        [
          ...mustBe(each.properties, "oidcIssuerProfile.enabled", true),
          ...mustBe(each.properties, "securityProfile.workloadIdentity.enabled", true),
        ].map((problem) => findingOn(each, problem)),
      ),
      ...ofType(resources, eks)
        .filter(() => !ofType(resources, "aws:eks/addon:Addon").some(isPodIdentity))
        .map((each) => findingOn(each, "the add-on eks-pod-identity-agent is missing")),
    ],
  },
  {
    id: "no-machine-login",
    title: "Nobody logs in to a node",
    levels: levels.always,
    severity: "medium",
    reason: "Who is on a node is every pod on it.",
    remedy: "AKS: sshAccess Disabled. EKS: no remoteAccess, no key pair.",
    judges: "resource",
    types: [
      "azure-native:containerservice:AgentPool",
      "aws:eks/nodeGroup:NodeGroup",
      "aws:ec2/launchTemplate:LaunchTemplate",
    ],
    judge: ({ type, properties }) => {
      if (type.startsWith("azure")) return mustBe(properties, "securityProfile.sshAccess", "Disabled");
      const key = type.endsWith("NodeGroup") ? "remoteAccess" : "keyName";
      return mustBe(properties, key, undefined);
    },
  },
];

function isPodIdentity({ properties }: { readonly properties: unknown }): boolean {
  return at(properties, "addonName") === "eks-pod-identity-agent";
}
