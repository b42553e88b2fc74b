import * as k8s from "@pulumi/kubernetes";
import { namespaces } from "../cloud.ts";
import { declare, type Cluster } from "./cluster.ts";
import { labels, modelFolder } from "./names.ts";

const name = "penstock-pods";

/**
 * What a pod in the serving namespace must be, beside the restricted Pod Security level: the one host path is the folder
 * with the models. CEL; an absent field counts as what Kubernetes takes it for.
 */
function rules(folder: string): { readonly expression: string; readonly message: string }[] {
  return [
    {
      expression:
        "!object.spec.?hostNetwork.orValue(false) && !object.spec.?hostPID.orValue(false) && !object.spec.?hostIPC.orValue(false)",
      message: "Pods here must not share the node's network, processes or memory.",
    },
    {
      expression: "object.spec.?securityContext.?runAsNonRoot.orValue(false)",
      message: "Pods here must set securityContext.runAsNonRoot.",
    },
    {
      expression: "object.spec.?securityContext.?seccompProfile.?type.orValue('') == 'RuntimeDefault'",
      message: "Pods here must have the seccomp profile RuntimeDefault.",
    },
    {
      expression:
        "variables.containers.all(c, !c.?securityContext.?privileged.orValue(false) && !c.?securityContext.?allowPrivilegeEscalation.orValue(true))",
      message: "Containers here must not be privileged, and must set allowPrivilegeEscalation to false.",
    },
    {
      expression:
        "variables.containers.all(c, 'ALL' in c.?securityContext.?capabilities.?drop.orValue([]) && c.?securityContext.?capabilities.?add.orValue([]).size() == 0)",
      message: "Containers here must drop all capabilities and add none.",
    },
    {
      expression: `object.spec.?volumes.orValue([]).all(v, !has(v.hostPath) || v.hostPath.path == '${folder}')`,
      message: `The only host path that pods here may mount is ${folder}.`,
    },
  ];
}

/** Refuses pods in the serving namespace that break the rules, at admission. */
export function podRules(cluster: Cluster): void {
  const { plan } = cluster;
  declare(cluster, k8s.admissionregistration.v1.ValidatingAdmissionPolicy, {
    metadata: { name, labels: labels(plan, name, "policy") },
    spec: {
      failurePolicy: "Fail",
      matchConstraints: {
        resourceRules: [
          { apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE", "UPDATE"], resources: ["pods"] },
        ],
      },
      variables: [
        { name: "containers", expression: "object.spec.containers + object.spec.?initContainers.orValue([])" },
      ],
      validations: rules(modelFolder(plan)),
    },
  });
  declare(cluster, k8s.admissionregistration.v1.ValidatingAdmissionPolicyBinding, {
    metadata: { name, labels: labels(plan, name, "policy") },
    spec: {
      policyName: name,
      validationActions: ["Deny"],
      matchResources: {
        namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespaces.serving } },
      },
    },
  });
}
