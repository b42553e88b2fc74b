import type { UsageReport } from "./allocation.ts";
import type { CostDocument, Table } from "./table.ts";
import { centsOf, centsText, usdText } from "./money.ts";
import { nobody, type UsageCost } from "./usage-costs.ts";

const columns = ["direct", "cold start", "idle", "shared", "provider", "total"] as const;

/** Usage and its cost as tables: by tenant, model, adapter and class, and the bills that they add up to. */
export function usageDocument(report: UsageReport, period: string): CostDocument {
  const { stack, rows, pools, gaps } = report;
  return {
    title: `Cost of the use of ${stack}`,
    subtitle: `${period}, ${Number(report.hours.toFixed(2))} hours. USD; every column adds up to the cent.`,
    warnings: gaps,
    sections: [
      bills(report),
      by("tenant", rows, ({ tenant }) => tenant),
      by("model", rows, ({ model }) => model),
      by("adapter", rows, ({ tenant, model, adapter }) =>
        adapter === null || tenant === nobody ? `${model}, no adapter` : `${model}:${adapter}`,
      ),
      by("request class", rows, (row) => row.class || "none"),
      ...(rows.some(({ provider }) => provider !== null)
        ? [by("provider", rows, ({ provider }) => provider ?? "this stack")]
        : []),
      {
        kind: "list",
        id: "method",
        title: "How it is divided",
        lines: [
          "Direct: replicas' time at work (from the gateway's metrics with --times, or else when requests were with them), by tokens; a prompt token and a cached one weigh less than a completion token.",
          "Cold start: by the requests that waited for a replica to become ready.",
          "Idle: of a model by those who use it, of a pool's nodes without a replica by those who use the pool.",
          "Shared: system nodes, stores, network and logs, in proportion to the rest.",
          ...pools.map(({ pool, source }) => `Bill of ${pool}: ${source}.`),
        ],
      },
    ],
  };
}

function bills({ pools, sharedBillMicroUsd, providerMicroUsd, totalMicroUsd }: UsageReport): Table {
  const lines = [
    ...pools.map(({ pool, billMicroUsd }) => ({ name: `pool ${pool}`, microUsd: billMicroUsd })),
    { name: "shared", microUsd: sharedBillMicroUsd },
    { name: "providers", microUsd: providerMicroUsd },
  ];
  return {
    kind: "table",
    id: "bills",
    title: "Bills, USD",
    columns: [
      { name: "bill", align: "left" },
      { name: "USD", align: "right" },
    ],
    rows: [
      ...lines.map(({ name, microUsd }) => [name, microUsd === null ? "unknown" : usdText(microUsd)]),
      [
        "Total",
        cellText(
          Math.round(totalMicroUsd / 10_000),
          pools.every(({ billMicroUsd }) => billMicroUsd !== null),
        ),
      ],
    ],
    hasTotal: true,
  };
}

function by(name: string, rows: readonly UsageCost[], keyOf: (row: UsageCost) => string): Table {
  const groups = [...Map.groupBy(rows, keyOf)].map(([key, those]) => {
    const sum = (of: (row: UsageCost) => number): number => those.reduce((total, row) => total + of(row), 0);
    return {
      key,
      isPriced: those.every((row) => row.isPriced),
      requests: sum((row) => row.requests),
      tokens: sum((row) => row.promptTokens + row.completionTokens),
      amounts: [
        sum((row) => row.directMicroUsd),
        sum((row) => row.coldStartMicroUsd),
        sum((row) => row.idleMicroUsd),
        sum((row) => row.sharedMicroUsd),
        sum((row) => row.providerMicroUsd),
        sum((row) => row.totalMicroUsd),
      ],
    };
  });
  const sorted = groups.toSorted((a, b) => (b.amounts.at(-1) ?? 0) - (a.amounts.at(-1) ?? 0));
  const cents = columns.map((_, at) => centsOf(sorted.map(({ amounts }) => amounts[at] ?? 0)));
  const isWhole = groups.every(({ isPriced }) => isPriced);
  const totals = cents.map((column) => column.reduce((sum, each) => sum + each, 0));
  return {
    kind: "table",
    id: `by-${name.replaceAll(" ", "-")}`,
    title: `By ${name}, USD`,
    columns: [
      { name, align: "left" },
      ...["requests", "tokens", ...columns].map((each) => ({ name: each, align: "right" as const })),
    ],
    rows: [
      ...sorted.map(({ key, requests, tokens, isPriced }, at) => [
        key,
        requests.toString(),
        tokens.toString(),
        ...cents.map((column, which) => cellText(column[at] ?? 0, isPriced || columns[which] === "provider")),
      ]),
      ["Total", "", "", ...totals.map((total, which) => cellText(total, isWhole || columns[which] === "provider"))],
    ],
    hasTotal: true,
  };
}

/** A sum that misses a bill is no less than what is known of it, and unknown when that is nothing. */
function cellText(cents: number, isPriced: boolean): string {
  if (isPriced) return centsText(cents);
  return cents === 0 ? "unknown" : `at least ${centsText(cents)}`;
}
