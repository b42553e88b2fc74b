import type { IScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { namespaces } from "../cloud.ts";
import { typedResource } from "../lib/custom-resource.ts";
import type { PlannedFleet } from "../plan/plan.ts";
import type { Cluster } from "./cluster.ts";
import { agentName, fleetName, labels, scalerAddress } from "./names.ts";

/** Polls that may fail before the fallback counts: the gateway rolls in less. */
const failuresBeforeFallback = 3;

/**
 * How many replicas a fleet has. The gateway tells KEDA the demand, and tells it at once when the first request for a
 * fleet at zero arrives; schedules set floors. Without the gateway a fleet stays as it is, and has one replica at least.
 */
export function scaler({ plan, options }: Cluster, fleet: PlannedFleet): void {
  const { replicas, scaling } = fleet;
  const isGroup = fleet.nodesPerReplica > 1;
  const name = fleetName(fleet);
  typedResource<IScaledObject>(
    name,
    {
      apiVersion: "keda.sh/v1alpha1",
      kind: "ScaledObject",
      metadata: { name, namespace: namespaces.serving, labels: labels(plan, agentName, "scaler") },
      spec: {
        scaleTargetRef: isGroup
          ? { apiVersion: "leaderworkerset.x-k8s.io/v1", kind: "LeaderWorkerSet", name }
          : { apiVersion: "apps/v1", kind: "Deployment", name },
        minReplicaCount: replicas.min,
        maxReplicaCount: replicas.max,
        pollingInterval: scaling.pollSeconds,
        cooldownPeriod: scaling.cooldownSeconds,
        fallback: {
          failureThreshold: failuresBeforeFallback,
          replicas: Math.max(1, replicas.min),
          behavior: "currentReplicasIfHigher",
        },
        advanced: { horizontalPodAutoscalerConfig: { name, behavior: behaviour(fleet) } },
        triggers: [
          {
            type: "external-push",
            name: "demand",
            metricType: "AverageValue",
            metadata: { scalerAddress, fleet: fleet.name, targetRequests: String(scaling.targetRequests) },
          },
          ...scaling.schedule.map(({ start, end, timezone, replicas: floor }, at) => ({
            type: "cron",
            name: `schedule-${at}`,
            metadata: { timezone, start, end, desiredReplicas: String(floor) },
          })),
        ],
      },
    },
    options,
  );
}

/** Up at once and by as much as there is already; down slowly, after the demand has stayed low. */
function behaviour({ scaling }: PlannedFleet) {
  return {
    scaleUp: {
      stabilizationWindowSeconds: 0,
      selectPolicy: "Max",
      policies: [
        { type: "Percent", value: 100, periodSeconds: 30 },
        { type: "Pods", value: 2, periodSeconds: 30 },
      ],
    },
    scaleDown: {
      // Kubernetes takes an hour at most.
      stabilizationWindowSeconds: Math.min(3_600, scaling.scaleDownSeconds),
      // A small fleet goes down one by one; a large one follows the day.
      selectPolicy: "Max",
      policies: [
        { type: "Percent", value: 10, periodSeconds: 60 },
        { type: "Pods", value: 1, periodSeconds: 60 },
      ],
    },
  };
}
