import { EC2NodeClass } from "@kubernetes-models/karpenter/karpenter.k8s.aws/v1/EC2NodeClass";
import { NodePool } from "@kubernetes-models/karpenter/karpenter.sh/v1/NodePool";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { Ajv } from "ajv";
import { ValidatingAdmissionPolicy } from "kubernetes-models/admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy";
import { ValidatingAdmissionPolicyBinding } from "kubernetes-models/admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding";
import { DaemonSet } from "kubernetes-models/apps/v1/DaemonSet";
import { Deployment } from "kubernetes-models/apps/v1/Deployment";
import { StatefulSet } from "kubernetes-models/apps/v1/StatefulSet";
import { HorizontalPodAutoscaler } from "kubernetes-models/autoscaling/v2/HorizontalPodAutoscaler";
import { NetworkPolicy } from "kubernetes-models/networking.k8s.io/v1/NetworkPolicy";
import { PodDisruptionBudget } from "kubernetes-models/policy/v1/PodDisruptionBudget";
import { Role } from "kubernetes-models/rbac.authorization.k8s.io/v1/Role";
import { RoleBinding } from "kubernetes-models/rbac.authorization.k8s.io/v1/RoleBinding";
import { PriorityClass } from "kubernetes-models/scheduling.k8s.io/v1/PriorityClass";
import { StorageClass } from "kubernetes-models/storage.k8s.io/v1/StorageClass";
import { ConfigMap } from "kubernetes-models/v1/ConfigMap";
import { Namespace } from "kubernetes-models/v1/Namespace";
import { PodTemplateSpec } from "kubernetes-models/v1/PodTemplateSpec";
import { ResourceQuota } from "kubernetes-models/v1/ResourceQuota";
import { Secret } from "kubernetes-models/v1/Secret";
import { Service } from "kubernetes-models/v1/Service";
import { ServiceAccount } from "kubernetes-models/v1/ServiceAccount";
import type { Manifest } from "../../../infra/commands/manifests/render.ts";
import { at } from "./manifests.ts";

/** A published model of a kind: made of an object it says whether that is valid. */
interface Model {
  validate(): void;
}
type ModelClass = new (data: never) => Model;

const classes: Readonly<Record<string, ModelClass>> = {
  "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy": ValidatingAdmissionPolicy,
  "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding": ValidatingAdmissionPolicyBinding,
  "apps/v1 DaemonSet": DaemonSet,
  "apps/v1 Deployment": Deployment,
  "apps/v1 StatefulSet": StatefulSet,
  "autoscaling/v2 HorizontalPodAutoscaler": HorizontalPodAutoscaler,
  // Azure's collector took over the Prometheus operator's API under a group of its own.
  "azmonitoring.coreos.com/v1 PodMonitor": PodMonitor,
  "karpenter.k8s.aws/v1 EC2NodeClass": EC2NodeClass,
  "karpenter.sh/v1 NodePool": NodePool,
  "keda.sh/v1alpha1 ScaledObject": ScaledObject,
  "monitoring.coreos.com/v1 PodMonitor": PodMonitor,
  "monitoring.coreos.com/v1 PrometheusRule": PrometheusRule,
  "networking.k8s.io/v1 NetworkPolicy": NetworkPolicy,
  "policy/v1 PodDisruptionBudget": PodDisruptionBudget,
  "rbac.authorization.k8s.io/v1 Role": Role,
  "rbac.authorization.k8s.io/v1 RoleBinding": RoleBinding,
  "scheduling.k8s.io/v1 PriorityClass": PriorityClass,
  "storage.k8s.io/v1 StorageClass": StorageClass,
  "v1 ConfigMap": ConfigMap,
  "v1 Namespace": Namespace,
  "v1 ResourceQuota": ResourceQuota,
  "v1 Secret": Secret,
  "v1 Service": Service,
  "v1 ServiceAccount": ServiceAccount,
};

/** What of the LeaderWorkerSet API is used, from its documentation; nobody publishes it as a package. */
const leaderWorkerSet = new Ajv({ allErrors: true, allowUnionTypes: true }).compile({
  type: "object",
  required: ["apiVersion", "kind", "metadata", "spec"],
  properties: {
    spec: {
      type: "object",
      required: ["leaderWorkerTemplate"],
      additionalProperties: false,
      properties: {
        replicas: { type: "integer", minimum: 0 },
        startupPolicy: { enum: ["LeaderCreated", "LeaderReady"] },
        networkConfig: {
          type: "object",
          required: ["subdomainPolicy"],
          additionalProperties: false,
          properties: { subdomainPolicy: { enum: ["Shared", "UniquePerReplica"] } },
        },
        rolloutStrategy: {
          type: "object",
          required: ["type"],
          additionalProperties: false,
          properties: {
            type: { const: "RollingUpdate" },
            rollingUpdateConfiguration: {
              type: "object",
              additionalProperties: false,
              properties: {
                partition: { type: "integer", minimum: 0 },
                maxSurge: { type: ["integer", "string"] },
                maxUnavailable: { type: ["integer", "string"] },
              },
            },
          },
        },
        leaderWorkerTemplate: {
          type: "object",
          required: ["workerTemplate"],
          additionalProperties: false,
          properties: {
            size: { type: "integer", minimum: 1 },
            restartPolicy: { enum: ["RecreateGroupOnPodRestart", "None", "RecreateGroupAfterStart"] },
            leaderTemplate: { type: "object" },
            workerTemplate: { type: "object" },
            subGroupPolicy: { type: "object" },
          },
        },
      },
    },
  },
});

/** What the official schema of an object's kind has against it. Throws for a kind that nobody here knows. */
export function problemsOf(manifest: Manifest): string[] {
  const kind = `${manifest.apiVersion} ${manifest.kind}`;
  if (kind === "leaderworkerset.x-k8s.io/v1 LeaderWorkerSet") return groupProblems(manifest);
  const model = classes[kind];
  if (model === undefined) throw new Error(`no schema is known of ${kind}`);
  const { apiVersion, ...body } = manifest;
  return problems(model, apiVersion.startsWith("azmonitoring") ? body : manifest);
}

function groupProblems(manifest: Manifest): string[] {
  const template = at(manifest, "spec", "leaderWorkerTemplate", "workerTemplate");
  const own = leaderWorkerSet(manifest) ? [] : (leaderWorkerSet.errors ?? []);
  return [
    ...own.map(({ instancePath, message = "" }) => `${instancePath} ${message}`),
    ...problems(PodTemplateSpec, template),
  ];
}

function problems(model: ModelClass, body: unknown): string[] {
  try {
    // Whether it is of the model's type is what `validate` finds out.
    new model(body as never).validate();
    return [];
  } catch (thrown) {
    return [thrown instanceof Error ? thrown.message : String(thrown)];
  }
}
