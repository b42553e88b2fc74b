import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import type { CloudOutputs } from "../cloud.ts";
import { concern } from "../lib/concern.ts";
import type { CloudPlan } from "../plan/plan.ts";
import { addOns, type AddOns } from "./add-ons.ts";
import type { Cluster } from "./cluster.ts";
import { dashboards } from "./dashboards/index.ts";
import { fleet } from "./fleet.ts";
import { gateway } from "./gateway.ts";
import { karpenterPool } from "./karpenter.ts";
import { monitors } from "./monitors.ts";
import { foundation } from "./namespaces.ts";
import { networkPolicies } from "./network-policies.ts";
import { nodePriorities } from "./node-priorities.ts";
import { nodeSetup } from "./node-setup.ts";
import { placeholders } from "./placeholders.ts";
import { scaler } from "./scaler.ts";
import { secrets, type MadeSecrets, type OperatorSecrets } from "./secrets.ts";
import { serviceAccounts } from "./service-accounts.ts";
import { storage, storeUrls } from "./stores.ts";

/** What a deployment tells. */
export interface KubernetesOutputs {
  readonly endpoint: string;
  /** Address that the endpoint's DNS name must point to. */
  readonly loadBalancer: pulumi.Output<string>;
  /** A secret: a key that may do everything, to make the first keys with. */
  readonly adminKey: pulumi.Output<string>;
  /** A secret; null where Grafana is not in the cluster. */
  readonly grafanaPassword: pulumi.Output<string> | null;
}

/** Everything of a plan that is in its cluster. Throws `invalid_config` for an add-on that is not known. */
export function deployKubernetes(plan: CloudPlan, cloud: CloudOutputs, given: OperatorSecrets): KubernetesOutputs {
  const provider = new k8s.Provider(
    "kubernetes",
    { kubeconfig: cloud.kubeconfig, enableServerSideApply: true },
    { dependsOn: [...cloud.dependsOn] },
  );
  const stage = stager({ plan, cloud, provider });
  const base = stage("foundation", [], (cluster) => {
    foundation(cluster);
    storage(cluster);
    serviceAccounts(cluster);
    return {};
  });
  const installed = stage("add-ons", [base.concern], addOns);
  const nodes = stage("nodes", [installed.concern], (cluster) => {
    nodeSetup(cluster);
    nodePriorities(cluster);
    for (const pool of plan.pools) {
      if (pool.provisioner === "karpenter") karpenterPool(cluster, pool);
      if (pool.warmSpares > 0) placeholders(cluster, pool);
    }
    return {};
  });
  const keys = stage("secrets", [base.concern], (cluster) => {
    networkPolicies(cluster);
    return secrets(cluster, storeUrls(cluster), given);
  });
  const front = stage("gateway", [keys.concern], (cluster) => ({ service: gateway(cluster, keys.checksum) }));
  stage("fleets", [keys.concern, nodes.concern], (cluster) => {
    for (const planned of plan.fleets) {
      const workload = fleet(cluster, planned, keys.checksum);
      scaler({ ...cluster, options: { ...cluster.options, dependsOn: [workload, front.service] } }, planned);
    }
    return {};
  });
  stage("watching", [installed.concern], (cluster) => {
    monitors(cluster);
    dashboards(cluster);
    return {};
  });
  return outputsOf(plan, { service: front.service, keys, installed });
}

/** Builds one part of the deployment as a component, after others; `concern` is that component. */
function stager({ plan, cloud, provider }: Omit<Cluster, "options"> & { readonly provider: k8s.Provider }) {
  return <Made extends object>(
    name: string,
    after: readonly pulumi.Resource[],
    build: (cluster: Cluster) => Made,
  ): Made & { readonly concern: pulumi.ComponentResource } =>
    concern("kubernetes", name, ({ parent }) => {
      const made = build({ plan, cloud, options: { parent, provider, dependsOn: [...after] } });
      return { ...made, concern: parent };
    });
}

function outputsOf(
  plan: CloudPlan,
  { service, keys, installed }: { service: k8s.core.v1.Service; keys: MadeSecrets; installed: AddOns },
): KubernetesOutputs {
  return {
    endpoint: `https://${plan.gateway.config.hostname}/v1`,
    loadBalancer: service.status.apply((status) => {
      const address = status?.loadBalancer?.ingress?.[0];
      return address?.hostname ?? address?.ip ?? "";
    }),
    adminKey: pulumi.secret(keys.adminKey),
    grafanaPassword: installed.grafanaPassword === null ? null : pulumi.secret(installed.grafanaPassword),
  };
}
