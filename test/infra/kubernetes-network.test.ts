import { describe, expect, it } from "vitest";
import { mayReach, type End, type PodEnd } from "../support/pulumi/network.ts";
import { renderedOf, renderedStacks, type Rendered } from "../support/pulumi/manifests.ts";

const app = "app.kubernetes.io/name";
const inServing = (labels: Record<string, string>): PodEnd => ({ namespace: "penstock", labels });
const gateway = inServing({ [app]: "penstock-gateway" });
const agentOf = (fleet: string): PodEnd => inServing({ [app]: "penstock-agent", "penstock.dev/fleet": fleet });
const keda = (rendered: Rendered): PodEnd => ({
  namespace: rendered.plan.addOns.find(({ name }) => name === "keda")?.namespace ?? "",
  labels: { app: "keda-operator" },
});
const prometheus = (rendered: Rendered): PodEnd =>
  rendered.plan.addOns.some(({ name }) => name === "kube-prometheus-stack")
    ? { namespace: "penstock-monitoring", labels: { [app]: "prometheus" } }
    : { namespace: "kube-system", labels: { rsName: "ama-metrics" } };
const stranger: PodEnd = { namespace: "default", labels: { [app]: "penstock-gateway" } };
const metadata: End = { address: "169.254.169.254" };
const somewhere: End = { address: "203.0.113.7" };

describe.each(renderedStacks)("%s", (stack) => {
  it("lets the gateway and Prometheus reach agents, and nobody else", async () => {
    const rendered = await renderedOf(stack);
    const fleets = rendered.plan.fleets.map(({ name }) => name);
    expect(fleets.length).toBeGreaterThan(1);
    for (const fleet of fleets) {
      const to = { to: agentOf(fleet), port: 8081 };
      expect(mayReach(rendered, gateway, to)).toBe(true);
      expect(mayReach(rendered, prometheus(rendered), to)).toBe(true);
      const others = [keda(rendered), stranger, somewhere, inServing({ [app]: "penstock-redis" }), inServing({})];
      for (const other of others) expect(mayReach(rendered, other, to)).toBe(false);
      for (const other of fleets.filter((each) => each !== fleet)) {
        expect(mayReach(rendered, agentOf(other), to)).toBe(false);
      }
      // Engines are on other ports, of loopback; those are closed too.
      expect(mayReach(rendered, gateway, { to: agentOf(fleet), port: 8000 })).toBe(false);
    }
  });

  it("lets KEDA ask for demand, and nobody else", async () => {
    const rendered = await renderedOf(stack);
    const to = { to: gateway, port: 8090 };
    expect(mayReach(rendered, keda(rendered), to)).toBe(true);
    for (const other of [
      stranger,
      somewhere,
      agentOf("small"),
      prometheus(rendered),
      { ...keda(rendered), labels: {} },
    ]) {
      expect(mayReach(rendered, other, to)).toBe(false);
    }
  });

  it("lets clients reach the endpoint: from outside, and from namespaces that are marked", async () => {
    const rendered = await renderedOf(stack);
    const isOpen = rendered.plan.gateway.config.allowedAddresses.length === 0;
    const to = { to: gateway, port: 8443 };
    expect(mayReach(rendered, somewhere, to)).toBe(isOpen);
    expect(mayReach(rendered, { address: "198.51.100.9" }, to)).toBe(true);
    expect(mayReach(rendered, { address: rendered.plan.network.cidr.replace(/\/.*/, "") }, to)).toBe(true);
    expect(mayReach(rendered, stranger, to)).toBe(false);
    expect(mayReach(rendered, { ...stranger, namespaceLabels: { "penstock.dev/client": "true" } }, to)).toBe(true);
    expect(mayReach(rendered, agentOf("small"), to)).toBe(false);
  });

  it("keeps pods from the node's identity, and lets them reach their own and the blob store", async () => {
    const rendered = await renderedOf(stack);
    for (const pod of [gateway, agentOf("small"), inServing({ [app]: "penstock-model-push" })]) {
      for (const port of [80, 443]) {
        expect(mayReach(rendered, pod, { to: metadata, port })).toBe(false);
        expect(mayReach(rendered, pod, { to: { address: "168.63.129.16" }, port })).toBe(false);
      }
      expect(mayReach(rendered, pod, { to: somewhere, port: 443 })).toBe(true);
      expect(mayReach(rendered, pod, { to: somewhere, port: 80 })).toBe(false);
    }
    const podIdentity = { to: { address: "169.254.170.23" }, port: 80 } as const;
    expect(mayReach(rendered, agentOf("small"), podIdentity)).toBe(rendered.plan.cloud === "aws");
  });

  it("lets every pod look up names", async () => {
    const rendered = await renderedOf(stack);
    const dns: PodEnd = { namespace: "kube-system", labels: { "k8s-app": "kube-dns" } };
    for (const pod of [gateway, agentOf("small")]) {
      expect(mayReach(rendered, pod, { to: dns, port: 53, protocol: "UDP" })).toBe(true);
      expect(mayReach(rendered, pod, { to: dns, port: 53 })).toBe(true);
    }
  });

  it("lets the gateway alone reach the stores", async () => {
    const rendered = await renderedOf(stack);
    const { redis, postgres } = rendered.plan;
    const inside: End = { address: "10.40.9.9" };
    const redisEnd = redis.mode === "in-cluster" ? inServing({ [app]: "penstock-redis" }) : inside;
    const postgresEnd = postgres.mode === "in-cluster" ? inServing({ [app]: "penstock-postgres" }) : inside;
    for (const [to, port] of [
      [redisEnd, 6379],
      [postgresEnd, 5432],
    ] as const) {
      expect(mayReach(rendered, gateway, { to, port })).toBe(true);
      expect(mayReach(rendered, agentOf("small"), { to, port })).toBe(false);
      expect(mayReach(rendered, gateway, { to: somewhere, port })).toBe(false);
    }
  });
});

it("lets the nodes of one replica talk on any port, and only those", async () => {
  const rendered = await renderedOf("multi-node");
  expect(mayReach(rendered, agentOf("large"), { to: agentOf("large"), port: 41_234 })).toBe(true);
  expect(mayReach(rendered, agentOf("small"), { to: agentOf("large"), port: 41_234 })).toBe(false);
  expect(mayReach(rendered, agentOf("large"), { to: agentOf("small"), port: 41_234 })).toBe(false);
  expect(mayReach(rendered, agentOf("small"), { to: agentOf("small"), port: 41_234 })).toBe(false);
});

it("lets traces out where a collector is named", async () => {
  const collector: PodEnd = { namespace: "tracing", labels: {} };
  expect(mayReach(await renderedOf("multi-node"), gateway, { to: collector, port: 4318 })).toBe(true);
  expect(mayReach(await renderedOf("azure-dev"), gateway, { to: collector, port: 4318 })).toBe(false);
});
