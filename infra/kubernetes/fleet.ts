import * as k8s from "@pulumi/kubernetes";
import { stringify } from "yaml";
import type * as pulumi from "@pulumi/pulumi";
import { defaultPorts } from "../../runtime/contracts/names.ts";
import { namespaces } from "../cloud.ts";
import type { PlannedFleet } from "../plan/plan.ts";
import { agentConfigOf } from "./agent-config.ts";
import { agentGraceSeconds, agentPod, coldStartSeconds } from "./agent-pod.ts";
import { declare, withOptions, type Cluster } from "./cluster.ts";
import { plainYaml } from "./containers.ts";
import { leaderLabel, leaderWorkerSet } from "./leader-worker-set.ts";
import { agentName, agentsService, fleetName, fleetSelector, labels } from "./names.ts";
import { checksumOf } from "./secrets.ts";

/** Replicas of one engine: config, workload, headless Service, disruption budget. Answers the workload, to scale it. */
export function fleet(cluster: Cluster, planned: PlannedFleet, secretsChecksum: pulumi.Input<string>): pulumi.Resource {
  const { plan } = cluster;
  const name = fleetName(planned);
  const config = stringify(agentConfigOf(plan, planned), plainYaml);
  const metadata = { name, namespace: namespaces.serving, labels: labels(plan, agentName, "agent") };
  declare(cluster, k8s.core.v1.ConfigMap, { metadata, data: { "agent.yaml": config } });
  service(cluster, planned, metadata);
  disruptionBudget(cluster, planned, metadata);
  const template = agentPod(cluster, planned, {
    configMap: name,
    checksums: { "penstock.dev/config": checksumOf(config), "penstock.dev/secrets": secretsChecksum },
  });
  return planned.nodesPerReplica > 1
    ? leaderWorkerSet(cluster, planned, template)
    : deployment(cluster, planned, { metadata, template });
}

type Metadata = { readonly name: string; readonly namespace: string; readonly labels: Record<string, string> };

/**
 * Headless: its EndpointSlices are the gateway's list of agents. Of a replica over several nodes only the leader is in it;
 * the Service by which those find each other has the workload's name, and LeaderWorkerSet makes it.
 */
function service(cluster: Cluster, planned: PlannedFleet, metadata: Metadata): void {
  const isGroup = planned.nodesPerReplica > 1;
  declare(cluster, k8s.core.v1.Service, {
    metadata: { ...metadata, name: agentsService(planned) },
    spec: {
      clusterIP: "None",
      selector: { ...fleetSelector(planned), ...(isGroup ? leaderLabel : {}) },
      ports: [{ name: "agent", port: defaultPorts.agent, targetPort: "agent" }],
    },
  });
}

/** One replica at a time may go for maintenance. */
function disruptionBudget(cluster: Cluster, planned: PlannedFleet, metadata: Metadata): void {
  declare(cluster, k8s.policy.v1.PodDisruptionBudget, {
    metadata,
    spec: {
      maxUnavailable: planned.nodesPerReplica,
      selector: { matchLabels: fleetSelector(planned) },
      unhealthyPodEvictionPolicy: "AlwaysAllow",
    },
  });
}

function deployment(
  cluster: Cluster,
  planned: PlannedFleet,
  { metadata, template }: { readonly metadata: Metadata; readonly template: k8s.types.input.core.v1.PodTemplateSpec },
): pulumi.Resource {
  // KEDA decides how many.
  return declare(withOptions(cluster, { ignoreChanges: ["spec.replicas"] }), k8s.apps.v1.Deployment, {
    // GPUs may take long to get, or not be had at all today; the rest of the stack is not held up by that.
    metadata: { ...metadata, annotations: { "pulumi.com/skipAwait": "true" } },
    spec: {
      replicas: planned.replicas.min,
      revisionHistoryLimit: 5,
      selector: { matchLabels: fleetSelector(planned) },
      // A replica goes before its successor comes: there is seldom a GPU to spare. And the next one goes only when the
      // successor has had the time to load its models.
      strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 0, maxUnavailable: 1 } },
      minReadySeconds: planned.transitions.loadSeconds,
      progressDeadlineSeconds: progressSeconds(planned),
      template,
    },
  });
}

/** From the old replica's first moment of draining to the new one's last of loading, and again as much. */
function progressSeconds(planned: PlannedFleet): number {
  const { nodeSeconds, imageSeconds } = planned.transitions;
  return 2 * (agentGraceSeconds(planned) + nodeSeconds + imageSeconds + coldStartSeconds(planned));
}
