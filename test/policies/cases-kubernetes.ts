import { adding, having, without } from "./subjects.ts";
import type { Subject } from "../../policies/judge.ts";
import type { Case } from "./cases-plan.ts";

const deployment = "kubernetes:apps/v1:Deployment";
const daemonSet = "kubernetes:apps/v1:DaemonSet";
const service = "kubernetes:core/v1:Service";
const namespace = "kubernetes:core/v1:Namespace";
const release = "kubernetes:helm.sh/v3:Release";
const container = "spec/template/spec/containers/0";

const set =
  (type: string, path: string, value: unknown) =>
  (subject: Subject): Subject =>
    having(subject, type, [path, value]);

/** Rules over what a program puts into the cluster. */
export const kubernetesCases: Readonly<Record<string, Case>> = {
  "network-policy-default-deny": {
    stack: "azure-prod",
    broken: [
      [
        (subject) => without(subject, "kubernetes:networking.k8s.io/v1:NetworkPolicy"),
        /penstock: it has no policy that denies everything/,
      ],
    ],
  },
  "one-public-address": {
    stack: "aws-prod",
    broken: [
      [
        (subject) => adding(subject, service, { metadata: { name: "agents" }, spec: { type: "LoadBalancer" } }),
        /its type is "LoadBalancer"/,
      ],
    ],
  },
  "one-autoscaler": {
    stack: "azure-prod",
    broken: [
      [
        (subject) =>
          adding(subject, "kubernetes:autoscaling/v2:HorizontalPodAutoscaler", {
            metadata: { name: "mine", namespace: "penstock" },
            spec: { scaleTargetRef: { apiVersion: "apps/v1", kind: "Deployment", name: "fleet-large" } },
          }),
        /added: penstock\/Deployment\/fleet-large has an autoscaler already/,
      ],
    ],
  },
  "no-static-keys": {
    stack: "aws-prod",
    broken: [
      [set(deployment, `${container}/env`, [{ name: "AWS_SECRET_ACCESS_KEY", value: "x" }]), /an access key of AWS/],
      [
        (subject) =>
          adding(subject, "kubernetes:core/v1:Secret", {
            data: { connection: Buffer.from("AccountName=a;AccountKey=c2VjcmV0").toString("base64") },
          }),
        /what looks like a key of a storage account$/,
      ],
      [(subject) => adding(subject, "aws:iam/accessKey:AccessKey", {}), /it is a key of a cloud/],
    ],
  },
  "pod-limits": {
    stack: "azure-prod",
    broken: [
      [set(deployment, `${container}/resources`, undefined), /agent requests no CPU/],
      [set(deployment, `${container}/resources/limits/memory`, undefined), /gateway has no limit of memory/],
      [
        set(deployment, `${container}/resources/limits`, { memory: "1Gi", "nvidia.com/gpu": "2" }),
        /with a limit of "2"/,
      ],
    ],
  },
  "pod-security": {
    stack: "aws-prod",
    broken: [
      [set(deployment, "spec/template/spec/hostNetwork", true), /hostNetwork is true/],
      [set(deployment, "spec/template/spec/hostPID", true), /hostPID is true/],
      [set(deployment, `${container}/securityContext/privileged`, true), /agent is privileged/],
      [set(deployment, `${container}/securityContext/runAsUser`, 0), /agent runs as root/],
      [set(deployment, `${container}/securityContext`, {}), /agent keeps capabilities/],
      [set(deployment, "spec/template/spec/securityContext", {}), /agent may run as root/],
      [set(deployment, `${container}/securityContext/capabilities/add`, ["SYS_ADMIN"]), /adds capabilities/],
      // The one pod that may be privileged is known by its place.
      [set(daemonSet, "metadata/name", "another"), /disks is privileged/],
      [set(daemonSet, "metadata/namespace", "penstock"), /hostPID is true/],
    ],
  },
  "host-paths": {
    stack: "azure-prod",
    broken: [
      [
        set(deployment, "spec/template/spec/volumes", [{ name: "root", hostPath: { path: "/" } }]),
        /it mounts "\/" of the node/,
      ],
    ],
  },
  "pod-probes": {
    stack: "azure-prod",
    broken: [
      [set(deployment, `${container}/readinessProbe`, undefined), /it has no readiness probe/],
      [
        set(deployment, `${container}/startupProbe`, { failureThreshold: 1, periodSeconds: 1 }),
        /fleet-large: it starts within 1 s, and needs \d+ s/,
      ],
    ],
  },
  "namespace-security": {
    stack: "aws-prod",
    broken: [
      [set(namespace, "metadata/labels", {}), /it enforces no level of Pod Security/],
      [
        (subject) => without(subject, "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicyBinding"),
        /penstock: it is privileged, and has no admission rules/,
      ],
    ],
  },
  "pinned-images": {
    stack: "aws-dev",
    broken: [
      [set(deployment, `${container}/image`, "ghcr.io/penstock/penstock-gateway:latest"), /has no version/],
      [set(deployment, `${container}/image`, "ghcr.io/penstock/penstock-gateway"), /has no version/],
      [set(deployment, `${container}/image`, "localhost:5000/penstock-gateway:1.0"), /is of no allowed registry/],
      [set(deployment, `${container}/image`, undefined), /the image of gateway is not set/],
    ],
  },
  "images-by-digest": {
    stack: "azure-prod",
    after: (subject) =>
      having(
        having(having(subject, deployment, [`${container}/image`, digest]), daemonSet, [`${container}/image`, digest]),
        daemonSet,
        ["spec/template/spec/initContainers/0/image", digest],
      ),
    broken: [[set(deployment, `${container}/image`, "ghcr.io/penstock/agent:1.0.0"), /image of gateway is "ghcr\.io/]],
  },
  "pinned-charts": {
    stack: "aws-prod",
    broken: [
      [set(release, "version", "1.0.0"), /its version is "1\.0\.0"; the catalogue has/],
      [set(release, "version", undefined), /its version is not set/],
      [set(release, "chart", "oci://registry.example.com/keda"), /is not in the catalogue/],
    ],
  },
};

const digest = `ghcr.io/penstock/image@sha256:${"0".repeat(64)}`;
