import type { types } from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";
import { namespaces } from "../cloud.ts";
import { typedResource } from "../lib/custom-resource.ts";
import type { PlannedFleet } from "../plan/plan.ts";
import type { Cluster } from "./cluster.ts";
import { agentName, fleetName, labels } from "./names.ts";

/** What of the LeaderWorkerSet API (leaderworkerset.x-k8s.io/v1) is used here; no package publishes its types. */
interface LeaderWorkerSet {
  readonly apiVersion: "leaderworkerset.x-k8s.io/v1";
  readonly kind: "LeaderWorkerSet";
  readonly spec: {
    /** Groups. */
    readonly replicas: number;
    readonly startupPolicy: "LeaderCreated" | "LeaderReady";
    readonly networkConfig: { readonly subdomainPolicy: "Shared" | "UniquePerReplica" };
    readonly rolloutStrategy: {
      readonly type: "RollingUpdate";
      readonly rollingUpdateConfiguration: { readonly maxSurge: number; readonly maxUnavailable: number };
    };
    readonly leaderWorkerTemplate: {
      /** Pods of a group, the leader among them. */
      readonly size: number;
      readonly restartPolicy: "RecreateGroupOnPodRestart" | "None";
      readonly workerTemplate: object;
    };
  };
}

/** Label of the pod of a group that serves. */
export const leaderLabel = { "leaderworkerset.sigs.k8s.io/worker-index": "0" } as const;

/**
 * Replicas over several nodes: each a group of pods that come and go together. Every pod runs an agent with the same
 * config; the leader's serves, the others' join it (`LWS_LEADER_ADDRESS` and so on come from the operator).
 */
export function leaderWorkerSet(
  { plan, options }: Cluster,
  fleet: PlannedFleet,
  workerTemplate: types.input.core.v1.PodTemplateSpec,
): pulumi.Resource {
  const name = fleetName(fleet);
  return typedResource<LeaderWorkerSet>(
    name,
    {
      apiVersion: "leaderworkerset.x-k8s.io/v1",
      kind: "LeaderWorkerSet",
      metadata: { name, namespace: namespaces.serving, labels: labels(plan, agentName, "agent") },
      spec: {
        replicas: fleet.replicas.min,
        // Workers are on their way to their nodes while the leader is on its own.
        startupPolicy: "LeaderCreated",
        networkConfig: { subdomainPolicy: "Shared" },
        rolloutStrategy: { type: "RollingUpdate", rollingUpdateConfiguration: { maxSurge: 0, maxUnavailable: 1 } },
        leaderWorkerTemplate: {
          size: fleet.nodesPerReplica,
          restartPolicy: "RecreateGroupOnPodRestart",
          workerTemplate,
        },
      },
    },
    { ...options, ignoreChanges: ["spec.replicas"] },
  );
}
