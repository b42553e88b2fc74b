import { amountText, columnTexts, sumOf, type Amount } from "./money.ts";
import { eachLevel, levels, type CostReport, type Levels, type TokenCost } from "./report.ts";
import { bought, perHour, sources, variants } from "./detail-tables.ts";
import { staleText } from "./stale.ts";
import { left, percent, perLevel, range, right, type CostDocument, type List, type Table } from "./table.ts";

/** The report as tables and lists. Columns of USD add up to their totals to the cent. */
export function documentOf(report: CostReport): CostDocument {
  const { stack, displayName, cloud, region, environment, assumptions } = report;
  const lists: List[] = [
    { kind: "list", id: "budget", title: "Budget and hard caps", lines: report.budget.lines },
    { kind: "list", id: "assumptions", title: "Assumptions", lines: report.assumptionLines },
    { kind: "list", id: "throughput", title: "Where throughput is from", lines: throughputLines(report) },
    { kind: "list", id: "unknown", title: "Without a price or figure", lines: report.unknown },
    { kind: "list", id: "not-included", title: "Not included", lines: report.notIncluded },
  ];
  const tables = [
    summary(report),
    pools(report),
    fleets(report),
    models(report),
    tokens(report),
    shared(report),
    variants(report),
    bought(report),
    perHour(report),
    sources(report),
  ];
  return {
    title: `Cost of ${stack}`,
    subtitle: `${displayName}: ${cloud === "azure" ? "Azure" : "AWS"} ${region}, ${environment}, as of ${assumptions.today}. USD.`,
    warnings: warningsOf(report),
    sections: [...tables.slice(0, 1), ...lists.slice(0, 1), ...tables.slice(1), ...lists.slice(1)].filter(
      (section) => section.kind === "table" || section.lines.length > 0,
    ),
  };
}

function warningsOf(report: CostReport): string[] {
  const stale = staleText(report);
  const unknown = report.unknown.length;
  const gaps = `${unknown} figures are unknown, listed under "Without a price or figure". None is taken for zero: sums that miss one say "at least" or "to".`;
  return [...(stale === null ? [] : [stale]), ...(unknown === 0 ? [] : [gaps])];
}

/** Texts of a column for each level, the total last. */
function levelColumns(rows: readonly Levels<Amount>[]): string[][] {
  const texts = levels.map((level) => columnTexts(rows.map((row) => row[level])));
  return [...rows, null].map((_, at) => texts.map((column) => column[at] ?? ""));
}

function costTable(
  head: Pick<Table, "id" | "title" | "note"> & { readonly columns: Table["columns"] },
  rows: readonly { readonly cells: readonly string[]; readonly cost: Levels<Amount> }[],
): Table {
  const texts = levelColumns(rows.map(({ cost }) => cost));
  const blanks = head.columns.slice(1).map(() => "");
  return {
    kind: "table",
    ...head,
    columns: [...head.columns, ...perLevel],
    rows: [
      ...rows.map(({ cells }, at) => [...cells, ...(texts[at] ?? [])]),
      ["Total", ...blanks, ...(texts[rows.length] ?? [])],
    ],
    hasTotal: true,
  };
}

function levelSums(costs: readonly Levels<Amount>[]): Levels<Amount> {
  return eachLevel((level) => sumOf(costs.map((cost) => cost[level])));
}

function levelLine(name: string, amounts: Levels<Amount>): string[] {
  return [name, ...levels.map((level) => amountText(amounts[level]))];
}

function summary({ pools: all, shared: items, total, hourlyTotal, hiddenFloor, idle }: CostReport): Table {
  const parts = levelColumns([levelSums(all.map(({ cost }) => cost)), levelSums(items.map(({ cost }) => cost))]);
  return {
    kind: "table",
    id: "summary",
    title: "What it costs",
    columns: [left("USD"), ...perLevel],
    rows: [
      ["GPU nodes, a month", ...(parts[0] ?? [])],
      ["Everything shared, a month", ...(parts[1] ?? [])],
      levelLine("of it the hidden floor: fees, NAT, endpoints, logs", hiddenFloor),
      ["Idle: nodes at their minimum that do nothing", amountText(idle), "", ""],
      levelLine("Total, an hour", hourlyTotal),
      levelLine("Total, a month", total),
    ],
    hasTotal: true,
  };
}

function pools({ pools: all }: CostReport): Table {
  return costTable(
    { id: "pools", title: "Pools, USD a month", columns: [left("pool"), right("nodes"), right("GPUs")] },
    all.map(({ name, nodes, gpus, cost }) => ({ cells: [name, range(nodes), range(gpus)], cost })),
  );
}

function fleets({ fleets: all, pools: groups }: CostReport): Table {
  const unused = groups.map(({ name, unused: cost }) => ({ cells: [`(no fleet's) ${name}`, name, ""], cost }));
  return costTable(
    {
      id: "fleets",
      title: "Fleets, USD a month",
      note: "Fleets share the nodes of a pool by the part of a node that a replica takes.",
      columns: [left("fleet"), left("pool"), right("replicas")],
    },
    [
      ...all.map(({ name, pool, replicas, cost }) => ({ cells: [name, pool, range(replicas)], cost })),
      ...unused.filter(({ cost }) =>
        Object.values(cost).some(({ highMicroUsd, unknown }) => highMicroUsd > 0 || unknown.length > 0),
      ),
    ],
  );
}

function models({ models: all }: CostReport): Table {
  return costTable(
    { id: "models", title: "Models, USD a month", columns: [left("model"), left("fleet"), left("share of the fleet")] },
    all.map(({ id, fleet, share, shareSource, cost }) => ({
      cells: [id, fleet, `${percent(share)}, ${shareSource}`],
      cost,
    })),
  );
}

function tokens({ models: all }: CostReport): Table {
  return {
    kind: "table",
    id: "tokens",
    title: "USD for a million tokens",
    note: "Of its nodes alone. `output only` charges everything to completion tokens, as benchmarks do.",
    columns: [
      left("model"),
      right("input"),
      right("output"),
      right("output only"),
      left("throughput of a replica"),
      left("charged (in / cached / out)"),
    ],
    rows: all.map(({ id, perMillionTokens, charged }) => [id, ...tokenCells(perMillionTokens), chargedText(charged)]),
    hasTotal: false,
  };
}

function tokenCells(cost: TokenCost | null): string[] {
  if (cost === null) return ["unknown", "unknown", "unknown", "nobody published it"];
  return [
    amountText(cost.input),
    amountText(cost.output),
    amountText(cost.outputOnly),
    `${cost.outputTokensPerSecond} tokens/s at ${percent(cost.utilisation)}`,
  ];
}

function throughputLines({ fleets: all }: CostReport): string[] {
  return all.flatMap(({ name, perMillionTokens }) =>
    perMillionTokens === null ? [] : [`${name}: ${perMillionTokens.source}`],
  );
}

function chargedText(charged: CostReport["models"][number]["charged"]): string {
  if (charged === null || charged === undefined) return "no price set";
  const { perMillionPromptTokens, perMillionCachedTokens, perMillionCompletionTokens } = charged;
  return [perMillionPromptTokens, perMillionCachedTokens, perMillionCompletionTokens]
    .map((price) => price ?? "-")
    .join(" / ");
}

function shared({ shared: all }: CostReport): Table {
  return costTable(
    {
      id: "shared",
      title: "Shared, USD a month",
      note: "A star marks the hidden floor.",
      columns: [left("item"), right("quantity"), left("unit"), right("USD a unit")],
    },
    all.map(({ name, quantity, unit, usdPerUnit, isHiddenFloor, cost }) => ({
      cells: [`${name}${isHiddenFloor ? " *" : ""}`, range(quantity), unit, usdPerUnit?.toString() ?? "unknown"],
      cost,
    })),
  );
}
