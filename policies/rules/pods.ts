import { namespaces } from "../../infra/cloud.ts";
import { privilegedPods } from "../allowed.ts";
import { findingOn, levels, type Finding, type PlannedResource, type ResourceRule, type StackRule } from "../rule.ts";
import { at, list, said } from "../values.ts";

/** What makes pods, and where the pod is in it. */
export const podPaths: Readonly<Record<string, string>> = {
  "kubernetes:core/v1:Pod": "spec",
  "kubernetes:apps/v1:Deployment": "spec.template.spec",
  "kubernetes:apps/v1:StatefulSet": "spec.template.spec",
  "kubernetes:apps/v1:DaemonSet": "spec.template.spec",
  "kubernetes:batch/v1:Job": "spec.template.spec",
  "kubernetes:batch/v1:CronJob": "spec.jobTemplate.spec.template.spec",
  "kubernetes:leaderworkerset.x-k8s.io/v1:LeaderWorkerSet": "spec.leaderWorkerTemplate.workerTemplate.spec",
};
const makers = Object.keys(podPaths);
const gpu = "nvidia.com/gpu";

/** What the program puts into the cluster. Charts bring objects of their own, which nobody sees here. */
export const podRules: readonly (ResourceRule | StackRule)[] = [
  {
    id: "pod-limits",
    title: "Every container says what it needs, and has a limit of memory",
    levels: levels.always,
    severity: "high",
    reason:
      "A pod without requests is placed where there is no room; one without a limit takes its neighbours' memory.",
    remedy: "Requests of CPU and memory, a limit of memory, and GPUs in both, alike.",
    judges: "resource",
    types: makers,
    judge: (resource) =>
      containersOf(resource).flatMap(({ name, container }) => {
        const asked = Object(at(container, "resources.requests"));
        const limits = Object(at(container, "resources.limits"));
        const problems: string[] = [];
        if (asked.cpu === undefined) problems.push("requests no CPU");
        if (asked.memory === undefined) problems.push("requests no memory");
        if (limits.memory === undefined) problems.push("has no limit of memory");
        if (asked[gpu] !== limits[gpu])
          problems.push(`asks for ${said(asked[gpu])} GPUs with a limit of ${said(limits[gpu])}`);
        return problems.map((problem) => `${name} ${problem}`);
      }),
  },
  {
    id: "pod-security",
    title: "No pod is more than it must be on its node",
    levels: levels.always,
    severity: "critical",
    reason: "A privileged pod is root on its node, and with it whatever else runs there.",
    remedy: "runAsNonRoot, no privileges, no host network, processes or memory; exceptions are in policies/allowed.ts.",
    judges: "resource",
    types: makers,
    judge: (resource) => (isPrivileged(resource) ? [] : [...podProblems(resource), ...containerProblems(resource)]),
  },
  {
    id: "host-paths",
    title: "The one folder of a node that pods share is that of the models",
    levels: levels.always,
    severity: "critical",
    reason: "A path of the node is a way to the node.",
    remedy: "emptyDir, or a claim; models are below the cache's directory.",
    judges: "stack",
    judge: (resources, plan) =>
      resources
        .filter((each) => podPaths[each.type] !== undefined && !isPrivileged(each))
        .flatMap((each) =>
          list(podOf(each), "volumes")
            .map((volume) => at(volume, "hostPath.path"))
            .filter((path) => path !== undefined && path !== `${plan.cache.nodeDirectory}/models`)
            .map((path) => findingOn(each, `it mounts ${said(path)} of the node`)),
        ),
  },
  {
    id: "pod-probes",
    title: "Kubernetes can tell whether a pod serves, and waits for a cold start",
    levels: levels.strictInProd,
    severity: "medium",
    reason:
      "Without a readiness probe requests come before the model does; with a short start-up probe it never comes.",
    remedy: "A readiness probe for what has ports; for agents a start-up probe as long as the fleet's transitions.",
    judges: "stack",
    judge: (resources, plan) =>
      resources
        .filter(({ type }) => type === "kubernetes:apps/v1:Deployment" || type === "kubernetes:apps/v1:StatefulSet")
        .flatMap((each): Finding[] => {
          const fleet = plan.fleets.find(({ name }) => `fleet-${name}` === at(each.properties, "metadata.name"));
          const needed = fleet?.transitions.loadSeconds ?? 0;
          return list(podOf(each), "containers")
            .flatMap((container) => [
              ...(hasPorts(container) && at(container, "readinessProbe") === undefined
                ? ["it has no readiness probe"]
                : []),
              ...(patience(container) < needed
                ? [`it starts within ${patience(container)} s, and needs ${needed} s`]
                : []),
            ])
            .map((problem) => findingOn(each, problem));
        }),
  },
  {
    id: "namespace-security",
    title: "Namespaces say what pods in them may be, and the serving one has rules of its own",
    levels: levels.always,
    severity: "high",
    reason:
      "What is checked here is what this program makes; whatever else comes into the cluster is checked at admission.",
    remedy: "The label pod-security.kubernetes.io/enforce, and a ValidatingAdmissionPolicy where it is `privileged`.",
    judges: "stack",
    judge(resources) {
      const policies = resources.filter(({ type }) => type.endsWith(":ValidatingAdmissionPolicyBinding"));
      const guarded = policies.map(({ properties }) =>
        JSON.stringify(at(properties, "spec.matchResources.namespaceSelector") ?? null),
      );
      return resources
        .filter(({ type }) => type === "kubernetes:core/v1:Namespace")
        .flatMap((each) => {
          const name = String(at(each.properties, "metadata.name"));
          const enforced: unknown = Object(at(each.properties, "metadata.labels"))[
            "pod-security.kubernetes.io/enforce"
          ];
          if (enforced === undefined) return [findingOn(each, "it enforces no level of Pod Security")];
          const isServing = name === namespaces.serving && enforced === "privileged";
          const hasRules = guarded.some((selector) => selector.includes(`"${name}"`));
          return isServing && !hasRules ? [findingOn(each, "it is privileged, and has no admission rules")] : [];
        });
    },
  },
];

/** A container with the name that a sentence gives it. */
export interface NamedContainer {
  readonly name: string;
  readonly container: unknown;
}

/** The pod that a resource makes. */
function podOf({ type, properties }: PlannedResource): unknown {
  const path = podPaths[type];
  return path === undefined ? undefined : at(properties, path);
}

/** All containers of what makes pods, those that run first too. */
export function containersOf(resource: PlannedResource): NamedContainer[] {
  const pod = podOf(resource);
  return [...list(pod, "initContainers"), ...list(pod, "containers")].map((container) => ({
    name: String(at(container, "name")),
    container,
  }));
}

function isPrivileged({ properties }: PlannedResource): boolean {
  const place = `${String(at(properties, "metadata.namespace"))}/${String(at(properties, "metadata.name"))}`;
  return privilegedPods.has(place);
}

function podProblems(resource: PlannedResource): string[] {
  const pod = podOf(resource);
  return ["hostNetwork", "hostPID", "hostIPC"].flatMap((key) => {
    const value = at(pod, key);
    return value === undefined || value === false ? [] : [`${key} is ${said(value)}`];
  });
}

function containerProblems(resource: PlannedResource): string[] {
  const ofPod = at(podOf(resource), "securityContext");
  return containersOf(resource).flatMap(({ name, container }) => {
    const own = at(container, "securityContext");
    const either = (key: string): unknown => at(own, key) ?? at(ofPod, key);
    const problems: string[] = [];
    if (either("runAsNonRoot") !== true) problems.push("may run as root");
    if (either("runAsUser") === 0) problems.push("runs as root");
    if ((at(own, "privileged") ?? false) !== false) problems.push("is privileged");
    if (at(own, "allowPrivilegeEscalation") !== false) problems.push("may gain privileges");
    if (!list(own, "capabilities.drop").includes("ALL")) problems.push("keeps capabilities");
    if (list(own, "capabilities.add").length > 0) problems.push("adds capabilities");
    return problems.map((problem) => `${name} ${problem}`);
  });
}

function hasPorts(container: unknown): boolean {
  return list(container, "ports").length > 0;
}

/** Seconds until Kubernetes gives up on a start; without such a probe it never does. */
function patience(container: unknown): number {
  const probe = at(container, "startupProbe");
  if (probe === undefined) return Infinity;
  const [failures, period] = [at(probe, "failureThreshold"), at(probe, "periodSeconds")];
  return Number(failures ?? 3) * Number(period ?? 10);
}
