import type * as pulumi from "@pulumi/pulumi";
import type { CloudPlan } from "./plan/plan.ts";

/** Values that only a deployment knows and that Kubernetes objects need. Secrets are Pulumi secrets. */
export interface CloudOutputs {
  /** For Pulumi's Kubernetes provider; a secret. */
  readonly kubeconfig: pulumi.Output<string>;
  /** What must be there before any pod: node pools, identities, add-ons. */
  readonly dependsOn: readonly pulumi.Resource[];
  /** By service account: what ties it to the cloud's identity. */
  readonly serviceAccounts: Readonly<
    Record<ServiceAccountName, { readonly annotations: Readonly<Record<string, pulumi.Input<string>>> }>
  >;
  /** Labels of pods that use a cloud identity. */
  readonly identityPodLabels: Readonly<Record<string, string>>;
  /** Environment of pods that read the cache: account, region. Never a key. */
  readonly storageEnv: Readonly<Record<string, pulumi.Input<string>>>;
  /** Of the gateway's Service: internal or public load balancer, PROXY protocol. */
  readonly serviceAnnotations: Readonly<Record<string, pulumi.Input<string>>>;
  /** Connection URLs of managed stores; null for in-cluster ones. Secrets. */
  readonly redisUrl: pulumi.Output<string> | null;
  readonly postgresUrl: pulumi.Output<string> | null;
  /** Where an in-cluster Prometheus sends what it measured (remote write); null where nothing is to be sent. */
  readonly metricsWriteUrl: pulumi.Output<string> | null;
  /**
   * By planned pool: a regular expression that its node group's name matches, for the cluster autoscaler's priorities.
   * Empty where something else makes nodes.
   */
  readonly nodeGroupPatterns: Readonly<Record<string, pulumi.Input<string>>>;
  /** For people: consoles, dashboards. */
  readonly links: Readonly<Record<string, pulumi.Output<string>>>;
}

/**
 * Service accounts that may have an identity on the cloud. Agents read the cache; only `model-push`, which jobs that fill
 * it run as, writes to it.
 */
export const serviceAccountNames = ["gateway", "agent", "model-push", "karpenter", "prometheus"] as const;
export type ServiceAccountName = (typeof serviceAccountNames)[number];

/** Namespaces of what we deploy. */
export const namespaces = {
  system: "penstock-system",
  serving: "penstock",
  monitoring: "penstock-monitoring",
} as const;

/** Makes everything of a plan that is the cloud's: network, cluster, pools, cache, identity, stores, budget. */
export type DeployCloud = (plan: CloudPlan) => CloudOutputs;
