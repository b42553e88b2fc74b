import type { UsageReport } from "./allocation.ts";
import { nobody, type UsageCost } from "./usage-costs.ts";

/** What a model cost and gave, for the gauges. */
interface ModelUse {
  readonly directMicroUsd: number;
  readonly totalMicroUsd: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/**
 * Cost by model under the names and labels that OpenCost has for inference, in Prometheus' text format. `allocation`
 * includes idle time and what is shared, and adds up to the bill; `usage` is time at work alone.
 */
export function gaugesText(report: UsageReport, promptTokenWeight: number): string {
  const models = [...Map.groupBy(report.rows.filter(isOurs), ({ model }) => model)].toSorted(([a], [b]) =>
    a < b ? -1 : 1,
  );
  const hourly: string[] = [];
  const perMillion: string[] = [];
  for (const [model, rows] of models) {
    const use = useOf(rows);
    for (const [basis, microUsd] of [
      ["allocation", use.totalMicroUsd],
      ["usage", use.directMicroUsd],
    ] as const) {
      const labels = { model_name: model, namespace: "penstock", cost_basis: basis };
      if (report.hours > 0) hourly.push(sample("llm_total_hourly_cost", labels, microUsd / 1_000_000 / report.hours));
      for (const [phase, usd] of perMillionOf(microUsd, use, promptTokenWeight)) {
        const method = phase === "" ? "" : "multiplier";
        perMillion.push(sample("llm_cost_per_million_tokens", { ...labels, phase, allocation_method: method }, usd));
      }
    }
  }
  return [
    "# HELP llm_total_hourly_cost USD an hour of an LLM, with (allocation) or without (usage) idle time and what is shared.",
    "# TYPE llm_total_hourly_cost gauge",
    ...hourly,
    "# HELP llm_cost_per_million_tokens USD for a million tokens: all of them, or those of the phase.",
    "# TYPE llm_cost_per_million_tokens gauge",
    ...perMillion,
    "",
  ].join("\n");
}

/** A model whose pool has no known bill has no gauge: 0 would be a lie. */
function isOurs({ provider, tenant, requests, isPriced }: UsageCost): boolean {
  return isPriced && provider === null && (tenant !== nobody || requests > 0);
}

function useOf(rows: readonly UsageCost[]): ModelUse {
  const sum = (of: (row: UsageCost) => number): number => rows.reduce((total, row) => total + of(row), 0);
  return {
    directMicroUsd: sum((row) => row.directMicroUsd),
    totalMicroUsd: sum((row) => row.totalMicroUsd),
    promptTokens: sum((row) => row.promptTokens),
    completionTokens: sum((row) => row.completionTokens),
  };
}

/** Without any token there is no price of one. */
function perMillionOf(microUsd: number, use: ModelUse, promptTokenWeight: number): [string, number][] {
  const tokens = use.promptTokens + use.completionTokens;
  if (tokens === 0) return [];
  const each = microUsd / (use.completionTokens + use.promptTokens * promptTokenWeight || 1);
  return [
    ["", microUsd / tokens],
    ["prompt", each * promptTokenWeight],
    ["generation", each],
  ];
}

function sample(name: string, labels: Readonly<Record<string, string>>, value: number): string {
  const text = Object.entries(labels)
    .filter(([, each]) => each !== "")
    .map(
      ([label, each]) => `${label}="${each.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`,
    );
  return `${name}{${text.join(",")}} ${Number(value.toFixed(6))}`;
}
