import { describe, expect, it } from "vitest";
import { placeholderOutputs } from "../../infra/commands/manifests/placeholders.ts";
import { agentPod } from "../../infra/kubernetes/agent-pod.ts";
import type { CloudPlan, PlannedFleet } from "../../infra/plan/plan.ts";
import {
  at,
  containersOf,
  list,
  object,
  ofKind,
  podsOf,
  renderedOf,
  renderedStacks,
  type Pod,
  type Rendered,
} from "../support/pulumi/manifests.ts";

function podOf(rendered: Rendered, fleet: Pick<PlannedFleet, "name">): Pod {
  const found = podsOf(rendered).find(({ workload }) => workload.endsWith(` fleet-${fleet.name}`));
  if (found === undefined) throw new Error(`the fleet ${fleet.name} has no pod`);
  return found;
}

const grace = ({ spec }: Pod): number => Number(at(spec, "terminationGracePeriodSeconds"));
const preStop = ({ spec }: Pod): number =>
  Number(at(spec, "containers", 0, "lifecycle", "preStop", "sleep", "seconds"));

describe.each(renderedStacks)("%s", (stack) => {
  it("bounds every container, and asks for whole GPUs", async () => {
    for (const pod of podsOf(await renderedOf(stack))) {
      for (const container of containersOf(pod)) {
        const [requests, limits] = [at(container, "resources", "requests"), at(container, "resources", "limits")];
        for (const resource of ["cpu", "memory"]) {
          expect(at(requests, resource), pod.workload).toMatch(/^\d+(m|Mi|Gi)?$/);
          expect(at(limits, resource), pod.workload).toMatch(/^\d+(m|Mi|Gi)?$/);
        }
        expect(at(limits, "nvidia.com/gpu")).toBe(at(requests, "nvidia.com/gpu"));
      }
    }
  });

  it("pins every image", async () => {
    for (const pod of podsOf(await renderedOf(stack))) {
      for (const container of containersOf(pod)) {
        const image = String(at(container, "image"));
        expect(image).toMatch(/:[^/]+$/);
        expect(image).not.toMatch(/:(latest|main|stable)$/);
      }
    }
  });

  it("has one privileged container, the one that sets up disks, away from what serves", async () => {
    const rendered = await renderedOf(stack);
    const privileged = podsOf(rendered).flatMap((pod) =>
      containersOf(pod)
        .filter((each) => at(each, "securityContext", "privileged") === true)
        .map((each) => `${pod.namespace}: ${pod.workload} ${String(at(each, "name"))}`),
    );
    expect(privileged).toEqual(["penstock-system: DaemonSet penstock-node-setup disks"]);
    const sharesNode = podsOf(rendered).filter(({ spec }) =>
      ["hostPID", "hostNetwork", "hostIPC"].some((key) => at(spec, key) === true),
    );
    expect(sharesNode.map(({ workload }) => workload)).toEqual(["DaemonSet penstock-node-setup"]);
  });

  it("serves from restricted pods whose one host path is the folder with the models", async () => {
    const rendered = await renderedOf(stack);
    const folder = `${rendered.plan.cache.nodeDirectory}/models`;
    const serving = podsOf(rendered).filter(({ namespace }) => namespace === "penstock");
    expect(serving.length).toBeGreaterThan(rendered.plan.fleets.length);
    for (const pod of serving) {
      expect(at(pod.spec, "securityContext")).toMatchObject({
        runAsNonRoot: true,
        seccompProfile: { type: "RuntimeDefault" },
      });
      for (const container of containersOf(pod)) {
        expect(at(container, "securityContext")).toEqual({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] },
        });
      }
      const hostPaths = list(pod.spec, "volumes").flatMap((volume) => at(volume, "hostPath") ?? []);
      const isAgent = at(pod.labels, "app.kubernetes.io/name") === "penstock-agent";
      expect(hostPaths).toEqual(isAgent ? [{ path: folder, type: "Directory" }] : []);
    }
    const rules = list(object(rendered, "ValidatingAdmissionPolicy", "penstock-pods"), "spec", "validations");
    expect(rules.map((rule) => String(at(rule, "expression"))).join("\n")).toContain(`v.hostPath.path == '${folder}'`);
  });

  it("keeps secrets in Secrets", async () => {
    const { manifests, releases } = await renderedOf(stack);
    const withSecret = manifests.filter((each) => JSON.stringify(each).includes("<secret:"));
    expect(new Set(withSecret.map(({ kind }) => kind))).toEqual(new Set(["Secret"]));
    expect(withSecret.length).toBeGreaterThan(1);
    expect(JSON.stringify(releases)).not.toContain("<secret:");
  });

  it("gives each fleet the GPUs, memory and shared memory of the plan", async () => {
    const rendered = await renderedOf(stack);
    for (const fleet of rendered.plan.fleets) {
      const { spec } = podOf(rendered, fleet);
      const resources = at(spec, "containers", 0, "resources", "limits");
      expect(resources).toMatchObject({
        "nvidia.com/gpu": String(fleet.gpusPerNode),
        cpu: `${fleet.pod.cpuMillis}m`,
        memory: `${fleet.pod.memoryGiB}Gi`,
      });
      expect(fleet.gpusPerNode * fleet.nodesPerReplica).toBe(fleet.gpusPerReplica);
      const shm = list(spec, "volumes").find((volume) => at(volume, "name") === "shm");
      expect(at(shm, "emptyDir")).toEqual({ medium: "Memory", sizeLimit: `${fleet.pod.sharedMemoryGiB}Gi` });
      // It counts towards the memory of the pod.
      expect(fleet.pod.sharedMemoryGiB).toBeLessThan(fleet.pod.memoryGiB);
    }
  });

  it("gives streams the time to end: pods, and the nodes below them", async () => {
    const rendered = await renderedOf(stack);
    const gateway = podsOf(rendered).find(({ workload }) => workload === "Deployment penstock-gateway");
    if (gateway === undefined) throw new Error("there is no gateway");
    expect(grace(gateway)).toBeGreaterThan(preStop(gateway) + rendered.plan.gateway.config.drainSeconds);
    for (const fleet of rendered.plan.fleets) {
      const pod = podOf(rendered, fleet);
      expect(grace(pod)).toBeGreaterThan(preStop(pod) + fleet.drainSeconds);
      const nodes = rendered.plan.pools.filter(
        ({ group, provisioner }) => group === fleet.pool && provisioner === "karpenter",
      );
      for (const { name } of nodes) {
        const nodePool = object(rendered, "NodePool", name);
        const seconds = Number.parseInt(String(at(nodePool, "spec", "template", "spec", "terminationGracePeriod")), 10);
        expect(seconds).toBeGreaterThan(grace(pod));
      }
    }
  });

  it("gives each replica its planned cold start before it counts as dead", async () => {
    const rendered = await renderedOf(stack);
    for (const fleet of rendered.plan.fleets) {
      const probe = at(podOf(rendered, fleet).spec, "containers", 0, "startupProbe");
      const budget = Number(at(probe, "periodSeconds")) * Number(at(probe, "failureThreshold"));
      const { downloadSeconds, loadSeconds } = fleet.transitions;
      expect(budget).toBeGreaterThanOrEqual(downloadSeconds + loadSeconds);
    }
  });

  it("places fleets on their pool, on spot nodes only where that was allowed", async () => {
    const rendered = await renderedOf(stack);
    for (const fleet of rendered.plan.fleets) {
      const { spec } = podOf(rendered, fleet);
      const affinity = at(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution");
      expect(at(affinity, "nodeSelectorTerms", 0, "matchExpressions")).toEqual([
        { key: "penstock.dev/pool", operator: "In", values: [fleet.pool] },
      ]);
      const tolerated = list(spec, "tolerations").map((each) => String(at(each, "key")));
      expect(tolerated).toContain("nvidia.com/gpu");
      const variants = rendered.plan.pools.filter(({ group }) => group === fleet.pool);
      const hasSpot = variants.some(({ capacity }) => capacity === "spot");
      expect(tolerated.some((key) => /spot|scalesetpriority/.test(key))).toBe(fleet.spot && hasSpot);
    }
  });

  it("prefers the variants of a pool in their order", async () => {
    const rendered = await renderedOf(stack);
    for (const fleet of rendered.plan.fleets) {
      const variants = rendered.plan.pools
        .filter(({ group, capacity }) => group === fleet.pool && (capacity !== "spot" || fleet.spot))
        .toSorted((one, other) => one.order - other.order);
      const { spec } = podOf(rendered, fleet);
      const preferred = list(spec, "affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution");
      const names = preferred.map((each) =>
        at(
          list(each, "preference", "matchExpressions").find((one) => at(one, "key") === "penstock.dev/variant"),
          "values",
          0,
        ),
      );
      expect(names).toEqual(variants.length < 2 ? [] : variants.map(({ name }) => name));
      const weights = preferred.map((each) => Number(at(each, "weight")));
      expect(weights).toEqual(weights.toSorted((one, other) => other - one));
    }
  });

  it("gives the API's token to the gateway alone", async () => {
    const rendered = await renderedOf(stack);
    const withToken = podsOf(rendered).filter(({ spec }) => at(spec, "automountServiceAccountToken") !== false);
    expect(withToken.map(({ workload }) => workload)).toEqual(["Deployment penstock-gateway"]);
    expect(at(object(rendered, "Role", "penstock-gateway"), "rules")).toEqual([
      { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["get", "list", "watch"] },
    ]);
  });

  it("caps GPUs where the plan does", async () => {
    const rendered = await renderedOf(stack);
    const hard = at(object(rendered, "ResourceQuota", "penstock-limits"), "spec", "hard", "requests.nvidia.com/gpu");
    const wanted = rendered.plan.fleets.reduce(
      (sum, { replicas, gpusPerReplica }) => sum + replicas.max * gpusPerReplica,
      0,
    );
    expect(Number(hard)).toBeGreaterThanOrEqual(wanted);
    for (const pool of rendered.plan.pools.filter(({ provisioner }) => provisioner === "karpenter")) {
      const limits = at(object(rendered, "NodePool", pool.name), "spec", "limits");
      expect(limits).toEqual({ "nvidia.com/gpu": String(pool.maxNodes * pool.gpu.count) });
    }
  });

  it("disrupts one replica at a time", async () => {
    const rendered = await renderedOf(stack);
    for (const fleet of rendered.plan.fleets) {
      const budget = object(rendered, "PodDisruptionBudget", `fleet-${fleet.name}`);
      expect(at(budget, "spec", "maxUnavailable")).toBe(fleet.nodesPerReplica);
    }
    expect(at(object(rendered, "PodDisruptionBudget", "penstock-gateway"), "spec", "maxUnavailable")).toBe(1);
  });
});

it("keeps spare nodes with pods that give way to everything", async () => {
  const rendered = await renderedOf("multi-node");
  const { pools } = rendered.plan;
  const spare = pools.find(({ warmSpares }) => warmSpares > 0);
  if (spare === undefined) throw new Error("no pool has spare nodes");
  const { spec } = object(rendered, "Deployment", `spare-${spare.name}`);
  expect(at(spec, "replicas")).toBe(spare.warmSpares);
  const pod = at(spec, "template", "spec");
  expect(at(pod, "containers", 0, "resources", "limits", "nvidia.com/gpu")).toBe(String(spare.gpu.count));
  expect(at(pod, "nodeSelector")).toEqual(spare.labels);
  const value = (name: unknown): number =>
    Number(
      at(
        ofKind(rendered, "PriorityClass").find(({ metadata }) => metadata.name === name),
        "value",
      ),
    );
  const ofFleets = at(
    podsOf(rendered).find(({ workload }) => workload.endsWith(" fleet-small"))?.spec,
    "priorityClassName",
  );
  expect(value(at(pod, "priorityClassName"))).toBeLessThan(0);
  expect(value(ofFleets)).toBeGreaterThan(0);
});

it("spreads gateways over nodes that they can use", async () => {
  const { spec } = object(await renderedOf("azure-prod"), "Deployment", "penstock-gateway");
  for (const constraint of list(spec, "template", "spec", "topologySpreadConstraints")) {
    // Otherwise each GPU node counts as an empty one, and no gateway may be placed any more.
    expect(at(constraint, "nodeTaintsPolicy")).toBe("Honor");
  }
});

it("gives replicas over several nodes of AWS their network cards, where the plugin for them is installed", async () => {
  const { plan } = await renderedOf("aws-prod");
  const fleet = plan.fleets.find(({ pool }) =>
    plan.pools.some((each) => each.group === pool && each.node.efaInterfaces > 0),
  );
  const [plugin] = plan.addOns;
  if (fleet === undefined || plugin === undefined) throw new Error("no pool of AWS has EFA");
  const cards = Math.min(
    ...plan.pools.filter(({ group }) => group === fleet.pool).map(({ node }) => node.efaInterfaces),
  );
  const limits = (nodesPerReplica: number, addOns: CloudPlan["addOns"]): unknown => {
    const changed = { ...plan, addOns };
    const cluster = { plan: changed, cloud: placeholderOutputs(changed), options: {} };
    const pod = agentPod(cluster, { ...fleet, nodesPerReplica }, { configMap: "c", checksums: {} });
    return at(pod, "spec", "containers", 0, "resources", "limits", "vpc.amazonaws.com/efa");
  };
  const withPlugin = [...plan.addOns, { ...plugin, name: "aws-efa-k8s-device-plugin" }];
  expect(limits(2, withPlugin)).toBe(String(cards));
  expect(limits(1, withPlugin)).toBeUndefined();
  expect(limits(2, plan.addOns)).toBeUndefined();
});
