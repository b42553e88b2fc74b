import * as k8s from "@pulumi/kubernetes";
import { namespaces, type ServiceAccountName } from "../cloud.ts";
import { declare, type Cluster } from "./cluster.ts";
import { labels } from "./names.ts";

/** Ours; those of charts are made by the charts. */
const ours = ["gateway", "agent", "model-push"] as const satisfies readonly ServiceAccountName[];

/** Service accounts of the serving namespace, tied to the cloud's identities. */
export function serviceAccounts(cluster: Cluster): void {
  const { plan, cloud } = cluster;
  for (const name of ours) {
    declare(cluster, k8s.core.v1.ServiceAccount, {
      metadata: {
        name,
        namespace: namespaces.serving,
        labels: labels(plan, `penstock-${name}`, "identity"),
        annotations: { ...cloud.serviceAccounts[name].annotations },
      },
      automountServiceAccountToken: false,
    });
  }
}
