import type * as pulumi from "@pulumi/pulumi";
import { namespaces } from "../cloud.ts";
import { agentGraceSeconds } from "./agent-pod.ts";
import type { Cluster } from "./cluster.ts";
import { variantLabel } from "./names.ts";
import { onPoolNodes } from "./node-setup.ts";
import { storageClass } from "./stores.ts";

/** Values of a chart. */
export type Values = Readonly<Record<string, pulumi.Input<unknown>>>;

/** What charts need to know beside the cluster. */
export interface ValueOptions {
  /** Secret with `admin-user` and `admin-password` of Grafana. */
  readonly grafanaSecret: string;
}

const bounded = (cpu: string, memory: string) => ({ requests: { cpu, memory }, limits: { memory } });

/** On the nodes with GPUs, whatever their taints. */
const onGpuNodes = {
  affinity: onPoolNodes(),
  tolerations: [{ operator: "Exists" }],
  nodeSelector: { "kubernetes.io/os": "linux" },
};

/** By name of the add-on in the plan. A chart that is not here has no reviewed values, and is refused. */
export const addOnValues: Readonly<Record<string, (cluster: Cluster, options: ValueOptions) => Values>> = {
  keda: () => ({
    operator: { replicaCount: 2 },
    metricsServer: { replicaCount: 2 },
    podDisruptionBudget: { operator: { maxUnavailable: 1 }, metricServer: { maxUnavailable: 1 } },
    resources: {
      operator: bounded("100m", "256Mi"),
      metricServer: bounded("100m", "256Mi"),
      webhooks: bounded("50m", "64Mi"),
    },
  }),
  karpenter: ({ plan, cloud }) => ({
    replicas: 2,
    serviceAccount: { name: "karpenter", annotations: cloud.serviceAccounts.karpenter.annotations },
    settings: { clusterName: plan.cluster.name, interruptionQueue: plan.cluster.name },
    controller: { resources: { ...bounded("500m", "1Gi") } },
    // It makes the nodes of everything else, so it runs on those that are there.
    tolerations: [{ key: "CriticalAddonsOnly", operator: "Exists" }],
  }),
  // For node groups, which Karpenter leaves alone; where Azure makes nodes, it brings its own.
  "cluster-autoscaler": ({ plan }) => ({
    cloudProvider: "aws",
    awsRegion: plan.region,
    autoDiscovery: { clusterName: plan.cluster.name },
    rbac: { serviceAccount: { name: "cluster-autoscaler" } },
    extraArgs: {
      expander: "priority",
      "scale-down-unneeded-time": "5m",
      // Agents keep models in a folder of the node: with this on, no GPU node would ever go.
      "skip-nodes-with-local-storage": "false",
      "max-graceful-termination-sec": String(60 + Math.max(0, ...plan.fleets.map(agentGraceSeconds))),
    },
    resources: bounded("100m", "512Mi"),
    tolerations: [{ key: "CriticalAddonsOnly", operator: "Exists" }],
  }),
  "nvidia-device-plugin": () => ({
    ...onGpuNodes,
    gfd: { enabled: false },
    failOnInitError: true,
    resources: bounded("10m", "64Mi"),
  }),
  "dcgm-exporter": () => ({
    ...onGpuNodes,
    // Scraped through our own PodMonitor, which each Prometheus understands.
    serviceMonitor: { enabled: false },
    resources: bounded("50m", "512Mi"),
  }),
  "leader-worker-set": () => ({ replicaCount: 2, resources: bounded("100m", "256Mi") }),
  "aws-efa-k8s-device-plugin": () => ({ ...onGpuNodes, resources: bounded("10m", "32Mi") }),
  "kube-prometheus-stack": prometheusValues,
};

function disk(storage: string) {
  return {
    spec: { storageClassName: storageClass, accessModes: ["ReadWriteOnce"], resources: { requests: { storage } } },
  };
}

function prometheusValues({ plan, cloud }: Cluster, { grafanaSecret }: ValueOptions): Values {
  const { retentionDays, mode } = plan.observability;
  const { metricsWriteUrl } = cloud;
  return {
    // Managed clusters show nothing of these.
    kubeControllerManager: { enabled: false },
    kubeEtcd: { enabled: false },
    kubeProxy: { enabled: false },
    kubeScheduler: { enabled: false },
    // It needs the node's own network and processes, which our namespaces do not allow.
    nodeExporter: { enabled: false },
    "kube-state-metrics": { metricLabelsAllowlist: [`nodes=[${variantLabel}]`] },
    prometheus: {
      serviceAccount: { name: "prometheus", annotations: cloud.serviceAccounts.prometheus.annotations },
      prometheusSpec: {
        retention: `${mode === "managed" ? 1 : retentionDays}d`,
        // All monitors and rules of the cluster, not only the chart's own.
        podMonitorSelectorNilUsesHelmValues: false,
        serviceMonitorSelectorNilUsesHelmValues: false,
        ruleSelectorNilUsesHelmValues: false,
        resources: bounded("500m", "2Gi"),
        storageSpec: { volumeClaimTemplate: disk("50Gi") },
        ...(metricsWriteUrl === null
          ? {}
          : {
              remoteWrite: [{ url: metricsWriteUrl, sigv4: { region: plan.region }, queueConfig: { maxShards: 20 } }],
            }),
      },
    },
    alertmanager: {
      alertmanagerSpec: { resources: bounded("50m", "128Mi"), storage: { volumeClaimTemplate: disk("2Gi") } },
    },
    grafana: {
      // Azure has its own beside managed Prometheus, and then not this chart. AWS has none without IAM Identity Center.
      enabled: true,
      admin: { existingSecret: grafanaSecret, userKey: "admin-user", passwordKey: "admin-password" },
      sidecar: { dashboards: { enabled: true, label: "grafana_dashboard", searchNamespace: namespaces.monitoring } },
      resources: bounded("100m", "256Mi"),
    },
  };
}
