/** Charts that are installed beside ours: what, from where, which version, and where the version was read. */
export const charts = {
  keda: {
    repository: "https://kedacore.github.io/charts",
    chart: "keda",
    version: "2.21.1",
    source: "github.com/kedacore/charts, release v2.21.1 of 16 November 2026",
  },
  karpenter: {
    repository: "oci://public.ecr.aws/karpenter",
    chart: "karpenter",
    version: "1.14.1",
    source: "github.com/aws/karpenter-provider-aws/releases, v1.14.1 of 21 August 2026",
  },
  "cluster-autoscaler": {
    repository: "https://kubernetes.github.io/autoscaler",
    chart: "cluster-autoscaler",
    version: "9.56.0",
    source:
      "github.com/kubernetes/autoscaler, cluster-autoscaler-chart-9.56.0 of 2 March 2026, after cluster-autoscaler 1.35.0",
  },
  "aws-efa-k8s-device-plugin": {
    repository: "https://aws.github.io/eks-charts",
    chart: "aws-efa-k8s-device-plugin",
    version: "0.5.20",
    source: "github.com/aws/eks-charts@de5fdc1d, stable/aws-efa-k8s-device-plugin/Chart.yaml",
  },
  "nvidia-device-plugin": {
    repository: "https://nvidia.github.io/k8s-device-plugin",
    chart: "nvidia-device-plugin",
    version: "0.19.2",
    source: "files of release v0.19.2 of github.com/NVIDIA/k8s-device-plugin, 26 May 2026",
  },
  "dcgm-exporter": {
    repository: "https://nvidia.github.io/dcgm-exporter/helm-charts",
    chart: "dcgm-exporter",
    version: "4.8.3",
    source: "docs.nvidia.com/datacenter/dcgm, release 4.6.0-4.8.3 of 15 July 2026",
  },
  "leader-worker-set": {
    repository: "oci://registry.k8s.io/lws/charts",
    chart: "lws",
    version: "0.9.0",
    source: "github.com/kubernetes-sigs/lws, release v0.9.0",
  },
  "kube-prometheus-stack": {
    repository: "https://prometheus-community.github.io/helm-charts",
    chart: "kube-prometheus-stack",
    version: "92.15.0",
    source: "newreleases.io, kube-prometheus-stack-92.15.0",
  },
} as const;

/** Name of an add-on that comes as a chart. */
export type ChartName = keyof typeof charts;

/** Kubernetes, unless the stack says otherwise: 1.35 is in standard support on EKS until 27 March 2027 (endoflife.date). */
export const kubernetesVersion = "1.35";
