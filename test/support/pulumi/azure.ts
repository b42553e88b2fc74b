import type { Answer, MockOptions } from "./mocks.ts";

/** What Azure would answer: ids in its own form, and outputs that other resources are made from. */
export const azureMocks = {
  answer: ({ type, name, inputs }): Answer | undefined => {
    const [cloud, module = "", kind = ""] = type.split(":");
    if (type === "random:index/randomPassword:RandomPassword") return { result: "aB3".repeat(14) };
    if (cloud !== "azure-native") return undefined;
    const called = physicalName(kind, inputs) ?? name;
    const id =
      kind === "ResourceGroup"
        ? `/subscriptions/${subscriptionId}/resourceGroups/${called}`
        : `/subscriptions/${subscriptionId}/resourceGroups/${String(inputs["resourceGroupName"])}/providers/Microsoft.${module}/${kind}/${called}`;
    return { id, name: called, ...outputs[kind]?.(called) };
  },
  call: (token) => calls[token] ?? {},
} satisfies Pick<MockOptions<unknown>, "answer" | "call">;

const subscriptionId = "00000000-0000-4000-8000-000000000001";

/** AKS calls what is inside a cluster by other inputs than `resourceName`, which is the cluster's. */
function physicalName(kind: string, inputs: Readonly<Record<string, unknown>>): string | undefined {
  const own = [`${kind.charAt(0).toLowerCase()}${kind.slice(1)}Name`, "accountName", "clusterName", "serverName"];
  const keys: Readonly<Record<string, readonly string[]>> = {
    ManagedCluster: ["resourceName"],
    UserAssignedIdentity: ["resourceName"],
    BlobContainer: ["containerName"],
    Database: ["databaseName"],
    PrivateZone: ["privateZoneName"],
    PublicIPAddress: ["publicIpAddressName"],
  };
  const name = (keys[kind] ?? own).map((key) => inputs[key]).find((value) => typeof value === "string");
  return typeof name === "string" ? name : undefined;
}

const outputs: Readonly<Record<string, (name: string) => Readonly<Record<string, unknown>>>> = {
  UserAssignedIdentity: (name) => ({ principalId: `principal-of-${name}`, clientId: `client-of-${name}` }),
  ManagedCluster: () => ({ oidcIssuerProfile: { enabled: true, issuerURL: "https://issuer.example/" } }),
  PublicIPAddress: () => ({ ipAddress: "203.0.113.7" }),
  RedisEnterprise: (name) => ({ hostName: `${name}.eastus.redis.azure.net` }),
  Server: (name) => ({ fullyQualifiedDomainName: `${name}.postgres.database.azure.com` }),
  Grafana: (name) => ({
    identity: { type: "SystemAssigned", principalId: `principal-of-${name}` },
    properties: { endpoint: `https://${name}.eus.grafana.azure.com` },
  }),
};

/** A kubeconfig as Azure writes it for clusters with Entra ID. */
export const azureKubeconfig = [
  "apiVersion: v1",
  "kind: Config",
  "users:",
  "  - name: clusterUser",
  "    user:",
  "      exec:",
  "        apiVersion: client.authentication.k8s.io/v1beta1",
  "        command: kubelogin",
  "        args:",
  "          - get-token",
  "          - --environment",
  "          - AzurePublicCloud",
  "          - --login",
  "          - devicecode",
  "",
].join("\n");

const calls: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "azure-native:authorization:getClientConfig": {
    clientId: "client",
    objectId: "deployer",
    subscriptionId,
    tenantId: "00000000-0000-4000-8000-000000000002",
  },
  "azure-native:containerservice:listManagedClusterUserCredentials": {
    kubeconfigs: [{ name: "clusterUser", value: Buffer.from(azureKubeconfig).toString("base64") }],
  },
  "azure-native:redisenterprise:listDatabaseKeys": { primaryKey: "key/with+signs=", secondaryKey: "second" },
};
