import * as k8s from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { defaultPorts, envNames } from "../../runtime/contracts/names.ts";
import { namespaces } from "../cloud.ts";
import { declare, withOptions, type Cluster } from "./cluster.ts";
import { plainYaml, restrictedContainer, restrictedPod, scratch, secretEnv, volumesOf } from "./containers.ts";
import { gatewayConfigOf, tlsDirectory } from "./gateway-config.ts";
import { gatewayName, gatewayPorts, labels, podLabels, scalerName, selectorLabels } from "./names.ts";
import { priorities } from "./namespaces.ts";
import { checksumOf, secretNames } from "./secrets.ts";

/** Between a pod's removal from the load balancer and SIGTERM: two of its health checks that fail. */
const preStopSeconds = 20;
/** On top of the drain: usage is written, stores are closed. */
const marginSeconds = 20;
/** Average of the CPU that pods ask for; a pod that relays streams needs the rest for peaks. */
const targetCpuPercent = 60;

const metadataOf = ({ plan }: Cluster, name = gatewayName) => ({
  name,
  namespace: namespaces.serving,
  labels: labels(plan, gatewayName, "gateway"),
});

/** The OpenAI endpoint. Answers its Service. */
export function gateway(cluster: Cluster, secretsChecksum: pulumi.Input<string>): k8s.core.v1.Service {
  const { plan } = cluster;
  const config = stringify(gatewayConfigOf(plan), plainYaml);
  const metadata = metadataOf(cluster);
  declare(cluster, k8s.core.v1.ConfigMap, { metadata, data: { "gateway.yaml": config } });
  endpointReader(cluster);
  // The autoscaler decides how many.
  declare(withOptions(cluster, { ignoreChanges: ["spec.replicas"] }), k8s.apps.v1.Deployment, {
    metadata,
    spec: {
      replicas: plan.gateway.replicas.min,
      revisionHistoryLimit: 5,
      selector: { matchLabels: selectorLabels(gatewayName) },
      strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
      template: {
        metadata: {
          labels: podLabels(plan, gatewayName, "gateway"),
          annotations: { "penstock.dev/config": checksumOf(config), "penstock.dev/secrets": secretsChecksum },
        },
        spec: podSpec(cluster),
      },
    },
  });
  declare(cluster, k8s.policy.v1.PodDisruptionBudget, {
    metadata,
    spec: { maxUnavailable: 1, selector: { matchLabels: selectorLabels(gatewayName) } },
  });
  autoscaler(cluster);
  return services(cluster);
}

function podSpec(cluster: Cluster): k8s.types.input.core.v1.PodSpec {
  const { plan } = cluster;
  const { gateway: planned } = plan;
  const { volumes, volumeMounts } = volumesOf([
    {
      volume: { name: "config", configMap: { name: gatewayName } },
      mount: { name: "config", mountPath: "/etc/penstock", readOnly: true },
    },
    {
      volume: { name: "tls", secret: { secretName: planned.config.tlsSecret, defaultMode: 0o440 } },
      mount: { name: "tls", mountPath: tlsDirectory, readOnly: true },
    },
    scratch("state", "/var/lib/penstock", "1Gi"),
    scratch("tmp", "/tmp", "256Mi"),
  ]);
  return {
    serviceAccountName: "gateway",
    // For EndpointSlices.
    automountServiceAccountToken: true,
    enableServiceLinks: false,
    priorityClassName: priorities.gateway.name,
    terminationGracePeriodSeconds: preStopSeconds + planned.config.drainSeconds + marginSeconds,
    securityContext: restrictedPod(),
    tolerations: [{ key: "CriticalAddonsOnly", operator: "Exists" }],
    topologySpreadConstraints: spread(plan.cluster.system.minNodes > 1),
    volumes,
    containers: [
      {
        name: "gateway",
        image: planned.image,
        args: ["--config", "/etc/penstock/gateway.yaml"],
        env: [envNames.agentToken, envNames.apiKey, envNames.redisUrl, envNames.postgresUrl].map((name) =>
          secretEnv(name, secretNames.gateway),
        ),
        ports: [
          { name: "https", containerPort: gatewayPorts.pod },
          { name: "scaler", containerPort: defaultPorts.scaler },
        ],
        resources: {
          requests: { cpu: `${planned.pod.cpuMillis}m`, memory: `${planned.pod.memoryMiB}Mi` },
          // A burst of new streams may take twice the CPU; memory is never promised twice.
          limits: { cpu: `${2 * planned.pod.cpuMillis}m`, memory: `${planned.pod.memoryMiB}Mi` },
        },
        securityContext: restrictedContainer,
        ...probes(),
        lifecycle: { preStop: { sleep: { seconds: preStopSeconds } } },
        volumeMounts,
      },
    ],
  };
}

/**
 * `/health` also for readiness: `/ready` asks for an agent that answers, and with all fleets at zero there is none until a
 * request wakes one; that request must reach a gateway, which holds it.
 */
function probes(): Pick<k8s.types.input.core.v1.Container, "startupProbe" | "readinessProbe" | "livenessProbe"> {
  const probe = { httpGet: { path: "/health", port: "https", scheme: "HTTPS" }, periodSeconds: 5, timeoutSeconds: 3 };
  return {
    startupProbe: { ...probe, failureThreshold: 24 },
    readinessProbe: { ...probe, failureThreshold: 2 },
    livenessProbe: { ...probe, periodSeconds: 10, failureThreshold: 6 },
  };
}

/** Over nodes, strictly where there are two at least, and over zones. Nodes that the gateway cannot use do not count. */
function spread(areSeveral: boolean): k8s.types.input.core.v1.TopologySpreadConstraint[] {
  const constraint = {
    maxSkew: 1,
    nodeTaintsPolicy: "Honor",
    labelSelector: { matchLabels: selectorLabels(gatewayName) },
    matchLabelKeys: ["pod-template-hash"],
  };
  return [
    {
      ...constraint,
      topologyKey: "kubernetes.io/hostname",
      whenUnsatisfiable: areSeveral ? "DoNotSchedule" : "ScheduleAnyway",
    },
    { ...constraint, topologyKey: "topology.kubernetes.io/zone", whenUnsatisfiable: "ScheduleAnyway" },
  ];
}

/** Up when the CPU is short, at once; down slowly, since each pod that goes waits for its streams. */
function autoscaler(cluster: Cluster): void {
  const { min, max } = cluster.plan.gateway.replicas;
  declare(cluster, k8s.autoscaling.v2.HorizontalPodAutoscaler, {
    metadata: metadataOf(cluster),
    spec: {
      scaleTargetRef: { apiVersion: "apps/v1", kind: "Deployment", name: gatewayName },
      minReplicas: min,
      maxReplicas: max,
      metrics: [
        {
          type: "Resource",
          resource: { name: "cpu", target: { type: "Utilization", averageUtilization: targetCpuPercent } },
        },
      ],
      behavior: {
        scaleUp: { stabilizationWindowSeconds: 0, policies: [{ type: "Percent", value: 100, periodSeconds: 15 }] },
        scaleDown: { stabilizationWindowSeconds: 600, policies: [{ type: "Pods", value: 1, periodSeconds: 120 }] },
      },
    },
  });
}

/** The load balancer for clients, and an address inside the cluster for KEDA. */
function services(cluster: Cluster): k8s.core.v1.Service {
  const { plan, cloud } = cluster;
  declare(cluster, k8s.core.v1.Service, {
    metadata: metadataOf(cluster, scalerName),
    spec: {
      selector: selectorLabels(gatewayName),
      ports: [{ name: "scaler", port: defaultPorts.scaler, targetPort: "scaler", appProtocol: "kubernetes.io/h2c" }],
    },
  });
  const { allowedAddresses } = plan.gateway.config;
  return declare(cluster, k8s.core.v1.Service, {
    metadata: { ...metadataOf(cluster), annotations: { ...cloud.serviceAnnotations } },
    spec: {
      type: "LoadBalancer",
      // Keeps the client's address, for limits by address and for logs.
      externalTrafficPolicy: "Local",
      ...(allowedAddresses.length === 0 ? {} : { loadBalancerSourceRanges: [...allowedAddresses] }),
      selector: selectorLabels(gatewayName),
      ports: [{ name: "https", port: gatewayPorts.service, targetPort: "https" }],
    },
  });
}

/** The gateway follows EndpointSlices to know its agents, and may do nothing else in the cluster. */
function endpointReader(cluster: Cluster): void {
  const metadata = metadataOf(cluster);
  declare(cluster, k8s.rbac.v1.Role, {
    metadata,
    rules: [{ apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["get", "list", "watch"] }],
  });
  declare(cluster, k8s.rbac.v1.RoleBinding, {
    metadata,
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: gatewayName },
    subjects: [{ kind: "ServiceAccount", name: "gateway", namespace: namespaces.serving }],
  });
}
