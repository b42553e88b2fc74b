import { describe, expect, it } from "vitest";
import { placeholderOutputs, placeholderSecrets } from "../../infra/commands/manifests/placeholders.ts";
import { deployKubernetes } from "../../infra/kubernetes/index.ts";
import type { CloudPlan } from "../../infra/plan/plan.ts";
import { planOf } from "../support/plans.ts";
import { at, list } from "../support/pulumi/manifests.ts";
import { underMocks, valueOf, type Registered } from "../support/pulumi/mocks.ts";

const password = "random:index/randomPassword:RandomPassword";

async function deployed(plan: CloudPlan, bare = false) {
  return await underMocks({
    stack: plan.stack,
    bare,
    program: () => deployKubernetes(plan, placeholderOutputs(plan), placeholderSecrets(plan)),
    answer: ({ type, name }) =>
      type === password
        ? { result: `value-of-${name}` }
        : { status: { loadBalancer: { ingress: [{ hostname: "lb.example.com" }] } } },
  });
}

function find(resources: readonly Registered[], type: string, name: string): Registered {
  const found = resources.find((each) => each.type === type && each.name === name);
  if (found === undefined) throw new Error(`no ${type} ${name} was registered`);
  return found;
}

describe("the deployment in a cluster", () => {
  it("keeps what is secret a secret in Pulumi's state", async () => {
    const { resources, result } = await deployed(await planOf("aws-dev"));
    const secrets = resources.filter(({ type }) => type === "kubernetes:core/v1:Secret");
    expect(secrets.map(({ name }) => name).toSorted()).toEqual([
      "grafana-admin",
      "penstock-agent",
      "penstock-gateway",
      "penstock-postgres",
      "penstock-redis",
      "penstock-tls",
    ]);
    for (const { secretInputs } of secrets) expect(secretInputs).toContain("stringData");
    expect(find(resources, "pulumi:providers:kubernetes", "kubernetes").secretInputs).toContain("kubeconfig");
    const workloads = resources.filter(({ type }) => /:(Deployment|ConfigMap|StatefulSet|ScaledObject)$/.test(type));
    expect(workloads.length).toBeGreaterThan(10);
    for (const { inputs } of workloads) expect(JSON.stringify(inputs)).not.toContain("value-of-");
    // Shown in previews: a workload that is secret as a whole could not be reviewed.
    for (const { secretInputs } of workloads) expect(secretInputs).toEqual([]);
    expect(await valueOf(result.adminKey)).toBe("value-of-admin-key");
  });

  it.each(["aws-prod", "azure-prod"] as const)("gives every resource of %s a name of its own", async (stack) => {
    const { resources } = await deployed(await planOf(stack));
    const names = resources.map(({ type, name }) => `${type} ${name}`);
    expect(names.length).toBeGreaterThan(50);
    expect(names.filter((name, position) => names.indexOf(name) < position)).toEqual([]);
  });

  it("puts the passwords of stores in the cluster into both ends", async () => {
    const { resources } = await deployed(await planOf("aws-dev"));
    const data = (name: string) => find(resources, "kubernetes:core/v1:Secret", name).inputs["stringData"];
    expect(data("penstock-gateway")).toMatchObject({
      PENSTOCK_AGENT_TOKEN: "value-of-agent-token",
      PENSTOCK_API_KEY: "value-of-admin-key",
      PENSTOCK_REDIS_URL: "redis://:value-of-redis-password@penstock-redis.penstock.svc:6379",
      PENSTOCK_POSTGRES_URL:
        "postgres://penstock:value-of-postgres-password@penstock-postgres.penstock.svc:5432/penstock",
    });
    expect(data("penstock-agent")).toEqual({ PENSTOCK_AGENT_TOKEN: "value-of-agent-token" });
    expect(data("penstock-redis")).toMatchObject({
      "store.conf": expect.stringContaining("requirepass value-of-redis-password"),
    });
    expect(data("penstock-postgres")).toEqual({ password: "value-of-postgres-password" });
  });

  it("leaves the number of replicas to those who decide it", async () => {
    const { resources } = await deployed(await planOf("azure-dev"));
    const scaled = resources.filter(({ type, name }) => type.endsWith(":Deployment") && !name.startsWith("spare-"));
    expect(scaled.length).toBeGreaterThan(2);
    for (const { ignoreChanges } of scaled) expect(ignoreChanges).toEqual(["spec.replicas"]);
  });

  it("waits for the endpoint, and not for GPUs", async () => {
    const { resources, result } = await deployed(await planOf("azure-prod"));
    const skips = (name: string) => find(resources, "kubernetes:apps/v1:Deployment", name).inputs["metadata"];
    expect(skips("fleet-small")).toMatchObject({ annotations: { "pulumi.com/skipAwait": "true" } });
    expect(JSON.stringify(skips("penstock-gateway"))).not.toContain("skipAwait");
    expect(result.endpoint).toBe("https://llm.example.com/v1");
    expect(await valueOf(result.loadBalancer)).toBe("lb.example.com");
  });

  it("goes in order: namespaces, charts, nodes, replicas, and then what scales them", async () => {
    const { resources } = await deployed(await planOf("aws-prod"));
    const all = new Map(resources.map((each) => [each.type, each]));
    const scaled = all.get("kubernetes:keda.sh/v1alpha1:ScaledObject");
    const names = (one: Registered | undefined) => (one?.dependencies ?? []).map((urn) => urn.split("::").at(-1));
    expect(names(scaled)).toContain("penstock-gateway");
    expect(names(find(resources, "kubernetes:apps/v1:Deployment", "fleet-small"))).toContain("penstock-node-setup");
    expect(names(all.get("kubernetes:karpenter.sh/v1:NodePool"))).toContain("karpenter");
    expect(names(find(resources, "kubernetes:helm.sh/v3:Release", "keda"))).toContain("penstock-system");
    expect(names(find(resources, "kubernetes:core/v1:Secret", "penstock-agent"))).toContain("penstock");
  });

  it("sends what it measured where a managed Prometheus is", async () => {
    const { resources } = await deployed(await planOf("aws-prod"));
    const { inputs } = find(resources, "kubernetes:helm.sh/v3:Release", "kube-prometheus-stack");
    const spec = at(inputs["values"], "prometheus", "prometheusSpec");
    expect(list(spec, "remoteWrite")).toMatchObject([
      { url: "<output: remote-write URL of the managed Prometheus>", sigv4: { region: "us-east-1" } },
    ]);
  });

  it("refuses a chart whose values nobody wrote", async () => {
    const plan = await planOf("aws-dev");
    const how = { kind: "helm", repository: "https://charts.example.com", chart: "x", version: "1.0.0" } as const;
    const unknown = { name: "x", how, namespace: "x", why: [] };
    await expect(deployed({ ...plan, addOns: [...plan.addOns, unknown] }, true)).rejects.toThrow(
      "No values are written for the chart `x`; there are keda",
    );
  });
});
