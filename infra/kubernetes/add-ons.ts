import * as k8s from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { namespaces } from "../cloud.ts";
import type { PlannedAddOn } from "../plan/plan.ts";
import { addOnValues } from "./add-on-values.ts";
import { addOn, declare, type Cluster } from "./cluster.ts";
import { labels } from "./names.ts";
import { password } from "./secrets.ts";

const grafanaSecret = "grafana-admin";

/** A chart may pull images and wait for its pods for so long. */
const timeoutSeconds = 900;

/** What the add-ons made. */
export interface AddOns {
  readonly grafanaPassword: pulumi.Output<string> | null;
}

/**
 * The plan's charts, each pinned there. What the cloud itself installs (`cluster`) is its room's.
 * Throws `invalid_config` for a chart that nobody here knows how to configure.
 */
export function addOns(cluster: Cluster): AddOns {
  const { plan } = cluster;
  const hasGrafana = addOn(plan, "kube-prometheus-stack") !== undefined;
  const grafanaPassword = hasGrafana ? grafanaAdmin(cluster) : null;
  for (const each of plan.addOns) install(cluster, each);
  return { grafanaPassword };
}

function install(cluster: Cluster, { name, how, namespace }: PlannedAddOn): k8s.helm.v3.Release | null {
  if (how.kind !== "helm") return null;
  const values = addOnValues[name];
  if (values === undefined) {
    const known = Object.keys(addOnValues).join(", ");
    throw new PenstockError("invalid_config", `No values are written for the chart \`${name}\`; there are ${known}.`);
  }
  const isOci = how.repository.startsWith("oci://");
  const release: k8s.helm.v3.ReleaseArgs = {
    name,
    namespace,
    chart: isOci ? `${how.repository}/${how.chart}` : how.chart,
    version: how.version,
    ...(isOci ? {} : { repositoryOpts: { repo: how.repository } }),
    values: { ...values(cluster, { grafanaSecret }) },
    atomic: true,
    timeout: timeoutSeconds,
  };
  return new k8s.helm.v3.Release(name, release, cluster.options);
}

function grafanaAdmin(cluster: Cluster): pulumi.Output<string> {
  const { plan } = cluster;
  const made = password("grafana-password", cluster.options);
  declare(cluster, k8s.core.v1.Secret, {
    metadata: {
      name: grafanaSecret,
      namespace: namespaces.monitoring,
      labels: labels(plan, grafanaSecret, "secret"),
    },
    stringData: { "admin-user": "admin", "admin-password": made },
  });
  return made;
}
