import { parse, stringify } from "yaml";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, test } from "vitest";
import type { PlannedFleet } from "../../infra/plan/plan.ts";
import { checkConfig } from "../../runtime/agent/config.ts";
import { gatewayConfig, readGatewayConfig, type GatewayConfig } from "../../runtime/gateway/config.ts";
import { temporaryFolder } from "../support/folders.ts";
import { agentConfigOf } from "../../infra/kubernetes/agent-config.ts";
import { gatewayConfigOf as rawGatewayConfig } from "../../infra/kubernetes/gateway-config.ts";
import { checkStack } from "../../infra/stack/load.ts";
import { planOf, stackOf } from "../support/plans.ts";
import { at, list, object, ofKind, renderedOf, renderedStacks, type Rendered } from "../support/pulumi/manifests.ts";

async function gatewayConfigOf(rendered: Rendered): Promise<GatewayConfig> {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "gateway.yaml");
  await writeFile(file, String(at(object(rendered, "ConfigMap", "penstock-gateway"), "data", "gateway.yaml")));
  return await readGatewayConfig(file);
}

function agentOf(rendered: Rendered, { name }: Pick<PlannedFleet, "name">) {
  return checkConfig(parse(String(at(object(rendered, "ConfigMap", `fleet-${name}`), "data", "agent.yaml"))));
}

test("hooks and the response cache of a stack reach the gateway's config; hooks of the operator's own do not fit in an image", async () => {
  const plan = await planOf("azure-prod");
  const model = plan.models[0]?.id ?? "";
  const hooks = [{ module: "penstock:redact-secrets", deadlineMs: 100, onError: "skip" as const }];
  const config = { ...plan.gateway.config, hooks, responseCache: { models: [model], seconds: 60 } };
  const rendered = rawGatewayConfig({ ...plan, gateway: { ...plan.gateway, config } });
  expect(gatewayConfig.parse(rendered)).toMatchObject({ hooks, responseCache: { models: [model], seconds: 60 } });
  const own = { ...(await stackOf("azure-prod")) };
  const wrong = { ...own, gateway: { ...own.gateway, hooks: [{ module: "./mine.ts" }] } };
  expect(() => checkStack(wrong, "/stacks/Pulumi.x.yaml")).toThrow(
    /gateway\.hooks\[0\]\.module: must be one of the library/,
  );
});

describe.each(renderedStacks)("%s", (stack) => {
  it("has a config that gateways read", async () => {
    const rendered = await renderedOf(stack);
    const config = await gatewayConfigOf(rendered);
    const { plan } = rendered;
    expect(config.models.map(({ id }) => id).toSorted()).toEqual(plan.models.map(({ id }) => id).toSorted());
    for (const model of config.models) {
      const planned = plan.models.find(({ id }) => id === model.id);
      expect(model).toMatchObject({
        ...planned?.spec,
        fleet: planned?.fleet,
        warm: planned?.warm,
        pinned: planned?.pinned,
      });
      expect(model.engine).toEqual(plan.fleets.find(({ name }) => name === model.fleet)?.engine);
      expect(config.prices[model.id]).toEqual(planned?.price ?? undefined);
    }
    expect(config).toMatchObject({
      tenants: plan.gateway.config.tenants,
      aliases: plan.gateway.config.aliases,
      hold: plan.gateway.config.hold,
      drainSeconds: plan.gateway.config.drainSeconds,
      tls: { certFile: "/etc/penstock-tls/tls.crt", keyFile: "/etc/penstock-tls/tls.key" },
      scaler: { host: "0.0.0.0", port: 8090 },
    });
    expect(config.tracing?.endpoint).toBe(plan.observability.tracesEndpoint ?? undefined);
  });

  it("finds agents through Services that select them, the leaders alone where a replica spans nodes", async () => {
    const rendered = await renderedOf(stack);
    const { fleets } = await gatewayConfigOf(rendered);
    expect(fleets.map(({ name }) => name)).toEqual(rendered.plan.fleets.map(({ name }) => name));
    for (const fleet of rendered.plan.fleets) {
      const agents = fleets.find(({ name }) => name === fleet.name)?.agents;
      if (agents?.kind !== "kubernetes") throw new Error("agents are not found through Kubernetes");
      const service = object(rendered, "Service", agents.service);
      expect(service.metadata.namespace).toBe(agents.namespace);
      expect(at(service, "spec", "clusterIP")).toBe("None");
      expect(at(service, "spec", "selector")).toEqual({
        "app.kubernetes.io/name": "penstock-agent",
        "penstock.dev/fleet": fleet.name,
        ...(fleet.nodesPerReplica > 1 ? { "leaderworkerset.sigs.k8s.io/worker-index": "0" } : {}),
      });
      expect(list(service, "spec", "ports").map((port) => at(port, "port"))).toEqual([agents.port]);
    }
  });

  it("has configs that agents read, with models that their own disk can hold", async () => {
    const rendered = await renderedOf(stack);
    for (const fleet of rendered.plan.fleets) {
      const config = agentOf(rendered, fleet);
      expect(config).toMatchObject({ port: 8081, drainSeconds: fleet.drainSeconds, reclaim: "none" });
      expect(config.readySeconds).toBeGreaterThan(fleet.transitions.loadSeconds);
      const served = [...config.serve.map(({ model }) => model), ...config.prefetch];
      expect(config.serve.length).toBeLessThanOrEqual(fleet.residentModels);
      expect(new Set(served.map(({ id }) => id)).size).toBe(served.length);
      const weightsGiB = rendered.plan.models
        .filter(({ id }) => served.some((model) => model.id === id))
        .reduce((sum, model) => sum + model.weightsGiB, 0);
      expect(weightsGiB).toBeLessThanOrEqual(fleet.pod.cacheGiB);
      // Agents of one node share its folder, and each counts all that is in it.
      const node = fleet.pod.cacheGiB * Math.max(1, fleet.replicasPerNode);
      expect(config.cache.budgetGiB).toBeGreaterThan(node - 1);
      expect(config.cache.budgetGiB).toBeLessThanOrEqual(node);
      for (const model of served) expect(fleet.models).toContain(model.id);
    }
  });

  it("scales each fleet by the gateway's demand", async () => {
    const rendered = await renderedOf(stack);
    const service = object(rendered, "Service", "penstock-gateway-scaler");
    for (const fleet of rendered.plan.fleets) {
      const { spec } = object(rendered, "ScaledObject", `fleet-${fleet.name}`);
      expect(spec).toMatchObject({
        scaleTargetRef: {
          kind: fleet.nodesPerReplica > 1 ? "LeaderWorkerSet" : "Deployment",
          name: `fleet-${fleet.name}`,
        },
        minReplicaCount: fleet.replicas.min,
        maxReplicaCount: fleet.replicas.max,
        fallback: { replicas: Math.max(1, fleet.replicas.min), behavior: "currentReplicasIfHigher" },
      });
      const [push, ...schedule] = list(spec, "triggers");
      expect(push).toMatchObject({
        type: "external-push",
        metadata: {
          scalerAddress: `${service.metadata.name}.${service.metadata.namespace}.svc:8090`,
          fleet: fleet.name,
          targetRequests: String(fleet.scaling.targetRequests),
        },
      });
      expect(schedule).toHaveLength(fleet.scaling.schedule.length);
      // Nothing may scale beside KEDA.
      const others = ofKind(rendered, "HorizontalPodAutoscaler").map(({ metadata }) => metadata.name);
      expect(others).toEqual(["penstock-gateway"]);
    }
  });
});

test("a replica over several nodes serves from the start, since its workers learn what to join from that alone", async () => {
  const rendered = await renderedOf("multi-node");
  const fleet = rendered.plan.fleets.find(({ nodesPerReplica }) => nodesPerReplica > 1);
  if (fleet === undefined) throw new Error("no fleet spans nodes");
  const config = agentOf(rendered, fleet);
  expect(config.serve.map(({ engine }) => engine)).toEqual([fleet.engine]);
  const { spec } = object(rendered, "LeaderWorkerSet", `fleet-${fleet.name}`);
  expect(at(spec, "leaderWorkerTemplate", "size")).toBe(fleet.nodesPerReplica);
});

describe("what a new replica brings up", () => {
  async function smallFleet(change: Partial<PlannedFleet>) {
    const { plan } = await renderedOf("azure-prod");
    const fleet = plan.fleets.find(({ models }) => models.length === 3);
    if (fleet === undefined) throw new Error("no fleet has three models");
    const config = checkConfig(parse(stringify(agentConfigOf(plan, { ...fleet, ...change }))));
    return {
      ids: fleet.models,
      serve: config.serve.map(({ model }) => model.id),
      prefetch: config.prefetch.map(({ id }) => id),
    };
  }

  it("is every model where they fit together", async () => {
    const { ids, serve, prefetch } = await smallFleet({ residentModels: 3 });
    expect(serve.toSorted()).toEqual([...ids].toSorted());
    expect(prefetch).toEqual([]);
  });

  it("is the warm one where they do not, and the others go to disk", async () => {
    const { serve, prefetch } = await smallFleet({ residentModels: 1 });
    expect(serve).toEqual(["llama-3.1-8b"]);
    expect(prefetch.toSorted()).toEqual(["mistral-7b", "qwen3-8b"]);
  });

  it("leaves out what the disk has no room for", async () => {
    const { pod } = (await renderedOf("azure-prod")).plan.fleets.find(({ models }) => models.length === 3) ?? {};
    if (pod === undefined) throw new Error("no fleet has three models");
    const { prefetch } = await smallFleet({ residentModels: 1, pod: { ...pod, cacheGiB: 32 } });
    expect(prefetch).toHaveLength(1);
  });
});
