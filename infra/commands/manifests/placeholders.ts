import * as pulumi from "@pulumi/pulumi";
import { serviceAccountNames, type CloudOutputs, type ServiceAccountName } from "../../cloud.ts";
import type { OperatorSecrets } from "../../kubernetes/secrets.ts";
import type { CloudPlan } from "../../plan/plan.ts";
import type { Cloud } from "../../stack/schema.ts";

/** Stands for a value that only a deployment knows. */
function output(what: string): string {
  return `<output: ${what}>`;
}

/** Stands for a secret. */
export function secretPlaceholder(what: string): string {
  return `<secret: ${what}>`;
}

type Rendered = Pick<CloudOutputs, "identityPodLabels" | "storageEnv"> & {
  readonly accounts: Partial<Record<ServiceAccountName, Readonly<Record<string, string>>>>;
};

/** What each cloud's room would say, as far as it shows in objects. */
const rendered = {
  azure: {
    accounts: {
      agent: { "azure.workload.identity/client-id": output("client id of agent") },
      "model-push": { "azure.workload.identity/client-id": output("client id of model-push") },
    },
    identityPodLabels: { "azure.workload.identity/use": "true" },
    storageEnv: { AZURE_STORAGE_ACCOUNT_NAME: output("storage account") },
  },
  aws: { accounts: {}, identityPodLabels: {}, storageEnv: { AWS_REGION: output("region") } },
} as const satisfies Record<Cloud, Rendered>;

function secret(what: string): pulumi.Output<string> {
  return pulumi.secret(secretPlaceholder(what));
}

/** What an operator would give, or the program make in his place. */
export function placeholderSecrets({ gateway }: CloudPlan): OperatorSecrets {
  if (gateway.config.certificate === "in-cluster") return { tls: null };
  return { tls: { certificate: secret("certificate of the endpoint"), key: secret("key of the endpoint") } };
}

/** Outputs of a cloud that was never asked: what is not known is named in angle brackets. */
export function placeholderOutputs(plan: CloudPlan): CloudOutputs {
  const { accounts, identityPodLabels, storageEnv } = rendered[plan.cloud];
  const annotationsOf = (name: ServiceAccountName) => ({ annotations: { ...Reflect.get(accounts, name) } });
  return {
    kubeconfig: secret("kubeconfig"),
    dependsOn: [],
    // One entry for each name: the list is the type's own.
    serviceAccounts: Object.fromEntries(
      serviceAccountNames.map((name) => [name, annotationsOf(name)]),
    ) as CloudOutputs["serviceAccounts"],
    identityPodLabels,
    storageEnv,
    serviceAnnotations: { "penstock.dev/load-balancer": output("annotations of the load balancer") },
    redisUrl: plan.redis.mode === "managed" ? secret("URL of Redis") : null,
    postgresUrl: plan.postgres.mode === "managed" ? secret("URL of PostgreSQL") : null,
    metricsWriteUrl:
      plan.cloud === "aws" && plan.observability.mode === "managed"
        ? pulumi.output(output("remote-write URL of the managed Prometheus"))
        : null,
    nodeGroupPatterns: Object.fromEntries(
      plan.pools
        .filter(({ provisioner }) => provisioner === "agent-pool")
        .map(({ name }) => [name, output(`node group of ${name}`)]),
    ),
    links: {},
  };
}
