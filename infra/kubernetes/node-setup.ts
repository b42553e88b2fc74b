import * as k8s from "@pulumi/kubernetes";
import { readFileSync } from "node:fs";
import { namespaces } from "../cloud.ts";
import type { CloudPlan } from "../plan/plan.ts";
import { declare, type Cluster } from "./cluster.ts";
import { restrictedContainer, unprivilegedUser } from "./containers.ts";
import { labels, podLabels, poolLabel, selectorLabels } from "./names.ts";
import { checksumOf } from "./secrets.ts";

const name = "penstock-node-setup";
const script = readFileSync(new URL("node-setup.sh", import.meta.url), "utf8");

/** Enters the node's mount namespace, so that the node's own tools are used and what is mounted stays. */
const enter = 'nsenter --target 1 --mount -- /bin/sh -s -- "$1" "$2" < /etc/penstock/node-setup.sh';

const resources = {
  requests: { cpu: "10m", memory: "32Mi" },
  limits: { cpu: "1", memory: "128Mi" },
};

/**
 * Sets up the folder with the models on each node of a pool, as the node joins. Its first container is privileged: it
 * makes file systems. What stays afterwards is not, and waits. The image is the gateway's, so that there is no other to
 * trust and to mirror: it has `sh`, `sleep` and util-linux's `nsenter`.
 */
export function nodeSetup(cluster: Cluster): void {
  const { plan } = cluster;
  const metadata = { name, namespace: namespaces.system, labels: labels(plan, name, "node-setup") };
  declare(cluster, k8s.core.v1.ConfigMap, { metadata, data: { "node-setup.sh": script } });
  declare(cluster, k8s.apps.v1.DaemonSet, {
    metadata,
    spec: {
      selector: { matchLabels: selectorLabels(name) },
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: "25%" } },
      template: {
        metadata: {
          labels: podLabels(plan, name, "node-setup"),
          annotations: { "penstock.dev/config": checksumOf(script) },
        },
        spec: {
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          hostPID: true,
          priorityClassName: "system-node-critical",
          terminationGracePeriodSeconds: 1,
          affinity: onPoolNodes(),
          tolerations: [{ operator: "Exists" }],
          volumes: [{ name: "script", configMap: { name } }],
          initContainers: [disks(plan)],
          containers: [
            {
              name: "wait",
              image: plan.gateway.image,
              command: ["sleep", "infinity"],
              resources,
              securityContext: { ...restrictedContainer, runAsNonRoot: true, runAsUser: unprivilegedUser },
            },
          ],
        },
      },
    },
  });
}

function disks({ gateway, cache }: CloudPlan): k8s.types.input.core.v1.Container {
  return {
    name: "disks",
    image: gateway.image,
    command: ["/bin/sh", "-c", enter, "sh", cache.nodeDirectory, String(unprivilegedUser)],
    resources,
    securityContext: { privileged: true, runAsUser: 0, runAsNonRoot: false, readOnlyRootFilesystem: true },
    volumeMounts: [{ name: "script", mountPath: "/etc/penstock", readOnly: true }],
  };
}

/** Nodes that a pool of the plan made, whichever. */
export function onPoolNodes(): k8s.types.input.core.v1.Affinity {
  return {
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [{ matchExpressions: [{ key: poolLabel, operator: "Exists" }] }],
      },
    },
  };
}
