import { describe, expect, it, test } from "vitest";
import { grafanaJson } from "../../infra/kubernetes/dashboards/dashboard.ts";
import { dashboardsOf } from "../../infra/kubernetes/dashboards/index.ts";
import { alertGroups } from "../../infra/lib/alerts.ts";
import { loadOf, simAgent, simModel } from "../agent/sim-agent.ts";
import { answers, chat, gatewayUnderTest } from "../gateway/support.ts";
import { at, list, object, ofKind, renderedOf, renderedStacks } from "../support/pulumi/manifests.ts";

/** Series of others that are used: NVIDIA's exporter (its default list) and kube-state-metrics. */
const others = new Set([
  "DCGM_FI_DEV_FB_FREE",
  "DCGM_FI_DEV_FB_USED",
  "DCGM_FI_DEV_GPU_TEMP",
  "DCGM_FI_DEV_GPU_UTIL",
  "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
  "DCGM_FI_DEV_POWER_USAGE",
  "DCGM_FI_DEV_ROW_REMAP_FAILURE",
  "DCGM_FI_DEV_XID_ERRORS",
  "DCGM_FI_PROF_DRAM_ACTIVE",
  "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
  "kube_horizontalpodautoscaler_spec_max_replicas",
  "kube_horizontalpodautoscaler_status_current_replicas",
  "kube_horizontalpodautoscaler_status_desired_replicas",
  "kube_node_labels",
  "kube_pod_status_phase",
]);

/** Series that had no sample in this test, and so no labels to look at: no hook ran, and no usage was estimated. */
const without = new Set([
  "penstock_gateway_hook_seconds_count",
  "penstock_gateway_hook_seconds_sum",
  "penstock_gateway_usage_estimated_total",
]);

const brackets = [
  ["(", ")"],
  ["[", "]"],
  ["{", "}"],
] as const;

/** Labels that Prometheus adds to what it scrapes. */
const added = new Set(["pod", "le"]);

/** Series of a metrics page: name as queries spell it -> labels of its samples, where it has any. */
function seriesOf(page: string): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  const types = new Map([...page.matchAll(/^# TYPE (\S+) (\w+)$/gm)].map(([, name = "", type = ""]) => [name, type]));
  for (const [name, type] of types) {
    const names = type === "histogram" ? ["_bucket", "_sum", "_count"].map((end) => name + end) : [name];
    for (const each of names) found.set(each, new Set());
  }
  for (const [, name = "", labels = ""] of page.matchAll(/^([a-z]\w*)\{([^}]*)\} /gm)) {
    for (const [, label = ""] of labels.matchAll(/(\w+)="/g)) found.get(name)?.add(label);
  }
  return found;
}

/** Metrics of a gateway and of an agent that have just served something. */
async function realSeries(): Promise<Map<string, Set<string>>> {
  const usage = { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 };
  await using gateway = await gatewayUnderTest(
    { onInfer: answers({ choices: [{ message: { content: "hi" } }], usage }) },
    { responseCache: { models: ["m"], seconds: 60 }, prices: { m: { perMillionCompletionTokens: 1 } } },
  );
  const post = async (): Promise<number> =>
    (await gateway.post("/v1/chat/completions", { ...chat, temperature: 0 })).status;
  expect([await post(), await post()]).toEqual([200, 200]);
  await using sim = await simAgent();
  const loaded = await sim.post("/load_model", loadOf("m", await simModel(sim.folder, "m")));
  expect(loaded.body).toMatchObject({ cache_state: "READY" });
  await expect.poll(async () => String((await sim.get("/metrics")).body)).toContain("penstock_agent_engine_kv_usage{");
  const gatewayPage = async (): Promise<string> => (await gateway.get("/metrics")).text();
  // Times of models come with heartbeats.
  await expect.poll(gatewayPage).toContain("penstock_gateway_model_replica_seconds{");
  const pages = [await gatewayPage(), String((await sim.get("/metrics")).body)];
  return new Map(pages.flatMap((page) => [...seriesOf(page)]));
}

async function expressions(): Promise<string[]> {
  const rendered = await Promise.all(renderedStacks.map(renderedOf));
  const panels = rendered.flatMap(({ plan }) =>
    dashboardsOf(plan).flatMap(({ rows }) => rows.flatMap(({ panels: each }) => each)),
  );
  const rules = alertGroups.flatMap((group) => group.rules);
  return [...panels.flatMap(({ queries }) => queries.map(({ expr }) => expr)), ...rules.map(({ expr }) => expr)];
}

test("every series and label that dashboards and alerts name is one that a gateway or an agent has", async () => {
  const known = await realSeries();
  const wrong = new Set<string>();
  for (const expr of await expressions()) {
    const names = [...expr.matchAll(/\b(?:penstock|DCGM|kube)_\w+/g)].map(([name]) => name);
    for (const name of names) if (!known.has(name) && !others.has(name)) wrong.add(name);
    for (const [, name = "", matchers = ""] of expr.matchAll(/\b(penstock_\w+)\{([^}]*)\}/g)) {
      const labels = known.get(name) ?? new Set();
      for (const [, label = ""] of matchers.matchAll(/(\w+)=/g)) if (!labels.has(label)) wrong.add(`${name}{${label}}`);
    }
    // Labels that a query sums by must be on one of its series; those of others are not known here.
    const ours = names.filter((name) => name.startsWith("penstock_") && !without.has(name));
    if (ours.length === names.length && ours.length > 0) {
      const all = new Set([...added, ...ours.flatMap((name) => [...(known.get(name) ?? [])])]);
      for (const [, by = ""] of expr.matchAll(/\bby \(([^)]*)\)/g)) {
        for (const label of by.split(/, */)) if (!all.has(label)) wrong.add(`${ours.join(", ")} by ${label}`);
      }
    }
  }
  expect([...wrong]).toEqual([]);
});

test("queries are whole: brackets close, and each line is named after a label that there is", async () => {
  for (const expr of await expressions()) {
    const plain = expr.replaceAll(/"[^"]*"/g, "");
    for (const [open, close] of brackets) expect(plain.split(open).length, expr).toBe(plain.split(close).length);
  }
  const { plan } = await renderedOf("aws-prod");
  for (const { rows } of dashboardsOf(plan)) {
    for (const panel of rows.flatMap(({ panels }) => panels)) {
      for (const { expr, legend } of panel.queries) {
        for (const [, label = ""] of legend.matchAll(/\{\{(\w+)\}\}/g)) {
          expect(expr, panel.title).toMatch(new RegExp(`\\bby \\([^)]*\\b${label}\\b`));
        }
      }
    }
  }
});

describe("dashboards", () => {
  it("are five, with panels that do not overlap", async () => {
    const { plan } = await renderedOf("aws-prod");
    const dashboards = dashboardsOf(plan);
    expect(dashboards.map(({ uid }) => uid)).toEqual([
      "penstock-gateway",
      "penstock-fleets",
      "penstock-cache",
      "penstock-gpus",
      "penstock-cost",
    ]);
    for (const dashboard of dashboards) {
      const panels = list(grafanaJson(dashboard), "panels");
      const cells = panels.flatMap((panel) => {
        const { x, y, w, h } = Object(at(panel, "gridPos"));
        expect(x + w).toBeLessThanOrEqual(24);
        return Array.from({ length: w * h }, (_, cell) => `${x + (cell % w)} ${y + Math.floor(cell / w)}`);
      });
      expect(new Set(cells).size).toBe(cells.length);
      const ids = panels.map((panel) => at(panel, "id"));
      expect(new Set(ids).size).toBe(ids.length);
    }
  });

  it("say what is not in a sum because nobody told its price", async () => {
    const { plan } = await renderedOf("aws-prod");
    const pools = plan.pools.map((pool, index) =>
      index === 0
        ? { ...pool, price: { ...pool.price, usdPerHour: null } }
        : { ...pool, price: { ...pool.price, usdPerHour: 2 } },
    );
    const cost = dashboardsOf({ ...plan, pools }).find(({ uid }) => uid === "penstock-cost");
    const total = cost?.rows[0]?.panels[0];
    expect(total?.about).toContain(plan.pools[0]?.name);
    expect(total?.queries[0]?.expr.match(/\* 2/g)).toHaveLength(pools.length - 1);
  });

  it("count nodes by a label that kube-state-metrics is told to show", async () => {
    const { plan, releases } = await renderedOf("aws-prod");
    const values = releases.find(({ name }) => name === "kube-prometheus-stack")?.values;
    expect(at(values, "kube-state-metrics", "metricLabelsAllowlist")).toEqual(["nodes=[penstock.dev/variant]"]);
    for (const pool of plan.pools) {
      expect(pool.labels["penstock.dev/variant"]).toBe(pool.name);
      const cost = JSON.stringify(dashboardsOf(plan).find(({ uid }) => uid === "penstock-cost"));
      expect(cost).toContain(`label_penstock_dev_variant=\\"${pool.name}\\"`);
    }
  });

  it("reach Grafana by their label", async () => {
    const rendered = await renderedOf("aws-dev");
    const maps = ofKind(rendered, "ConfigMap").filter(({ metadata }) => metadata.labels?.["grafana_dashboard"] === "1");
    expect(maps).toHaveLength(5);
    for (const map of maps) {
      expect(map.metadata.namespace).toBe("penstock-monitoring");
      const uid = map.metadata.name.replace(/^dashboard-/, "");
      expect(JSON.parse(String(at(map, "data", `${uid}.json`)))).toMatchObject({ uid });
    }
  });
});

describe("scraping", () => {
  it.each(renderedStacks)("%s: ports and credentials are those of the pods", async (stack) => {
    const rendered = await renderedOf(stack);
    const isAzure = rendered.plan.cloud === "azure" && rendered.plan.observability.mode === "managed";
    const monitors = ofKind(rendered, "PodMonitor");
    expect(monitors.map(({ metadata }) => metadata.name).toSorted()).toEqual([
      "dcgm-exporter",
      "penstock-agent",
      "penstock-gateway",
    ]);
    for (const monitor of monitors) {
      expect(monitor.apiVersion).toBe(isAzure ? "azmonitoring.coreos.com/v1" : "monitoring.coreos.com/v1");
      const credentials = at(monitor, "spec", "podMetricsEndpoints", 0, "authorization", "credentials");
      if (credentials === undefined) continue;
      const secret = object(rendered, "Secret", String(at(credentials, "name")));
      expect(secret.metadata.namespace).toBe(monitor.metadata.namespace);
      expect(at(secret, "stringData", String(at(credentials, "key")))).toContain("<secret:");
    }
    const rules = ofKind(rendered, "PrometheusRule");
    expect(rules).toHaveLength(isAzure ? 0 : 1);
  });

  it("alerts have a name of their own, and say what to do", () => {
    const rules = alertGroups.flatMap((group) => group.rules);
    expect(new Set(rules.map(({ name }) => name)).size).toBe(rules.length);
    for (const { remedy, summary } of rules) {
      expect(remedy.length).toBeGreaterThan(10);
      expect(summary).toMatch(/\.$/);
    }
  });
});
