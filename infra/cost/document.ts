import { amountText, columnTexts, hourly, sumOf, type Amount } from "./money.ts";
import { levels, type CostReport, type Levels, type TokenCost } from "./report.ts";

/** A table of texts. `total`: its last row. */
export interface Table {
  readonly kind: "table";
  readonly id: string;
  readonly title: string;
  readonly note?: string;
  readonly columns: readonly { readonly name: string; readonly align: "left" | "right" }[];
  readonly rows: readonly (readonly string[])[];
  readonly hasTotal: boolean;
}

/** Sentences under a title. */
export interface List {
  readonly kind: "list";
  readonly id: string;
  readonly title: string;
  readonly lines: readonly string[];
}

/** What every form of a report shows, in its order. */
export interface CostDocument {
  readonly title: string;
  readonly subtitle: string;
  /** What a reader must know before any number: old prices, prices that nobody knows. */
  readonly warnings: readonly string[];
  readonly sections: readonly (Table | List)[];
}

const left = (name: string): Table["columns"][number] => ({ name, align: "left" });
const right = (name: string): Table["columns"][number] => ({ name, align: "right" });
const perLevel = [right("minimum"), right("expected"), right("maximum")];

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

function warningsOf({ sources: known, unknown, assumptions }: CostReport): string[] {
  const stale = known.filter(({ isStale }) => isStale);
  const oldest = stale[0];
  return [
    ...(oldest === undefined
      ? []
      : [
          `The catalogue is old: ${stale.length} of ${known.length} price sources are older than ${assumptions.staleAfterDays} days, ` +
            `the oldest from ${oldest.asOf}. \`npm run prices -- refresh\` fetches today's.`,
        ]),
    ...(unknown.length === 0
      ? []
      : [`${unknown.length} figures are unknown and in no sum; they are listed under "Without a price or figure".`]),
  ];
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

function summary({ pools: all, shared: items, total, hourlyTotal, hiddenFloor, idle }: CostReport): Table {
  const sum = (costs: readonly Levels<Amount>[]): Levels<Amount> => ({
    minimum: sumOf(costs.map(({ minimum }) => minimum)),
    expected: sumOf(costs.map(({ expected }) => expected)),
    maximum: sumOf(costs.map(({ maximum }) => maximum)),
  });
  const parts = levelColumns([sum(all.map(({ cost }) => cost)), sum(items.map(({ cost }) => cost))]);
  const line = (name: string, amounts: Levels<Amount>): string[] => [
    name,
    ...levels.map((level) => amountText(amounts[level])),
  ];
  return {
    kind: "table",
    id: "summary",
    title: "What it costs",
    columns: [left("USD"), ...perLevel],
    rows: [
      ["GPU nodes, a month", ...(parts[0] ?? [])],
      ["Everything shared, a month", ...(parts[1] ?? [])],
      line("of it the hidden floor: fees, NAT, endpoints, logs", hiddenFloor),
      ["Idle: nodes at their minimum that do nothing", amountText(idle), "", ""],
      line("Total, an hour", hourlyTotal),
      line("Total, a month", total),
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
  const cells = (cost: TokenCost | null): string[] =>
    cost === null
      ? ["unknown", "unknown", "unknown", "nobody published it"]
      : [
          amountText(cost.input),
          amountText(cost.output),
          amountText(cost.outputOnly),
          `${cost.outputTokensPerSecond} tokens/s at ${percent(cost.utilisation)}`,
        ];
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
    rows: all.map(({ id, perMillionTokens, charged }) => [id, ...cells(perMillionTokens), chargedText(charged)]),
    hasTotal: false,
  };
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

function variants({ pools: all }: CostReport): Table {
  return {
    kind: "table",
    id: "variants",
    title: "Kinds of node, in the order to try",
    columns: [
      left("pool"),
      left("size"),
      left("bought"),
      right("USD an hour"),
      right("at most"),
      right("nodes"),
      left("price"),
    ],
    rows: all.flatMap(({ name, variants: kinds }) =>
      kinds.map(({ size, capacity, price, nodes }) => [
        name,
        size,
        capacity,
        price.usdPerHour?.toString() ?? "unknown",
        price.ceilingUsdPerHour?.toString() ?? "unknown",
        range(nodes),
        price.usdPerHour === null ? price.source : `${price.asOf}`,
      ]),
    ),
    hasTotal: false,
  };
}

function bought({ capacity }: CostReport): Table {
  return {
    kind: "table",
    id: "capacity",
    title: "How nodes are bought, expected",
    columns: [left("bought"), right("nodes"), right("share of node hours"), right("USD a month")],
    rows: capacity.map((each) => [each.capacity, number(each.nodes), percent(each.share), amountText(each.cost)]),
    hasTotal: false,
  };
}

function perHour({ pools: all, fleets: some, models: ids, shared: items }: CostReport): Table {
  const rows = [
    ...all.map(({ name, cost }) => ({ kind: "pool", name, cost })),
    ...some.map(({ name, cost }) => ({ kind: "fleet", name, cost })),
    ...ids.map(({ id: name, cost }) => ({ kind: "model", name, cost })),
    ...items.map(({ name, cost }) => ({ kind: "shared", name, cost })),
  ];
  return {
    kind: "table",
    id: "hourly",
    title: "USD an hour",
    note: "Pools and shared items add up to the total; fleets and models are parts of pools.",
    columns: [left("what"), left("name"), ...perLevel],
    rows: rows.map(({ kind, name, cost }) => [kind, name, ...levels.map((level) => amountText(hourly(cost[level])))]),
    hasTotal: false,
  };
}

function sources({ sources: all }: CostReport): Table {
  return {
    kind: "table",
    id: "sources",
    title: "Where prices are from",
    columns: [left("as of"), right("days old"), left("source")],
    rows: all.map(({ asOf, ageDays, isStale, source }) => [asOf, `${ageDays}${isStale ? " (old)" : ""}`, source]),
    hasTotal: false,
  };
}

function range({ minimum, expected, maximum }: Levels<number>): string {
  const all = [minimum, expected, maximum].map(number);
  return new Set(all).size === 1 ? number(minimum) : all.join(" / ");
}

function number(value: number): string {
  return Number(value.toFixed(2)).toString();
}

function percent(share: number): string {
  return `${Number((share * 100).toFixed(1))} %`;
}
