import { markdownTable } from "./markdown.ts";
import { amountText, centsText, sumOf, type Amount } from "./money.ts";
import { staleText } from "./stale.ts";
import { levels, type CostReport, type Levels } from "./report.ts";

/** One line that differs, or a total. Null: it is not there. */
export interface Changed {
  readonly kind: "pool" | "fleet" | "model" | "shared" | "total";
  readonly name: string;
  readonly before: Levels<Amount> | null;
  readonly after: Levels<Amount> | null;
}

/** What a change of a stack does to its cost. Amounts are of a month. */
export interface CostDifference {
  readonly version: 1;
  readonly before: string;
  readonly after: string;
  readonly total: Changed;
  /** Lines that differ; those that are as they were are left out. */
  readonly changes: readonly Changed[];
  /** What has no price now and had one, or was not there. */
  readonly newlyUnknown: readonly string[];
  readonly capChanges: readonly string[];
  /** That prices are old; null: they are not. */
  readonly stale: string | null;
  /** By how much the expected month can rise, in millionths of a USD; negative where it falls. */
  readonly riseMicroUsd: number;
}

/** A report and what to call it. */
export interface Named {
  readonly name: string;
  /** Null: there is no such stack there yet. */
  readonly report: CostReport | null;
}

/** Compares two reports of the same assumptions line by line. */
export function costDifference(before: Named, after: Named & { readonly report: CostReport }): CostDifference {
  const old = linesOf(before.report);
  const now = linesOf(after.report);
  const changes = [...new Set([...old.keys(), ...now.keys()])].flatMap((key) => {
    const [was, is] = [old.get(key), now.get(key)];
    const line = is ?? was;
    if (line === undefined || isSame(was?.cost, is?.cost)) return [];
    return [{ kind: line.kind, name: line.name, before: was?.cost ?? null, after: is?.cost ?? null }];
  });
  const expected = after.report.total.expected;
  const wasExpected = before.report?.total.expected ?? sumOf([]);
  const known = new Set(before.report?.unknown);
  return {
    version: 1,
    before: before.name,
    after: after.name,
    total: { kind: "total", name: "Total", before: before.report?.total ?? null, after: after.report.total },
    changes,
    newlyUnknown: after.report.unknown.filter((name) => !known.has(name)),
    capChanges: capChanges(before.report, after.report),
    stale: staleText(after.report),
    riseMicroUsd: Math.max(
      expected.lowMicroUsd - wasExpected.lowMicroUsd,
      expected.highMicroUsd - wasExpected.highMicroUsd,
    ),
  };
}

interface Line {
  readonly kind: Exclude<Changed["kind"], "total">;
  readonly name: string;
  readonly cost: Levels<Amount>;
}

function linesOf(report: CostReport | null): ReadonlyMap<string, Line> {
  if (report === null) return new Map();
  const { pools, fleets, models, shared } = report;
  const lines: Line[] = [
    ...pools.map(({ name, cost }) => ({ kind: "pool", name, cost }) as const),
    ...fleets.map(({ name, cost }) => ({ kind: "fleet", name, cost }) as const),
    ...models.map(({ id: name, cost }) => ({ kind: "model", name, cost }) as const),
    ...shared.map(({ id, name, cost }) => ({ kind: "shared", id, name, cost }) as const),
  ];
  return new Map(lines.map((line) => [JSON.stringify([line.kind, "id" in line ? line.id : line.name]), line]));
}

function isSame(a: Levels<Amount> | undefined, b: Levels<Amount> | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function capChanges(before: CostReport | null, after: CostReport): string[] {
  const old = new Map(before?.pools.map(({ name, cap }) => [name, cap.nodes]));
  const now = new Map(after.pools.map(({ name, cap }) => [name, cap.nodes]));
  return [...new Set([...old.keys(), ...now.keys()])]
    .filter((name) => old.get(name) !== now.get(name))
    .map((name) => `${name}: ${old.get(name) ?? "not there"} -> ${now.get(name) ?? "gone"} nodes`);
}

/** The difference as Markdown that fits a comment on a pull request. */
export function differenceText(difference: CostDifference): string {
  const { before, after, total, changes, newlyUnknown, capChanges: caps, stale } = difference;
  const rows = [...changes, total].map(rowOf);
  const columns = ["", "", "minimum", "expected", "maximum", "expected after"].map((name, at) => ({
    name,
    align: at < 2 ? ("left" as const) : ("right" as const),
  }));
  const table = markdownTable({ columns, rows, hasTotal: true });
  const lists = [
    ...(caps.length === 0 ? [] : ["Hard caps that change:", caps.map((line) => `- ${line}`).join("\n")]),
    ...(newlyUnknown.length === 0
      ? []
      : ["Unknown now, and in no sum:", newlyUnknown.map((line) => `- ${line}`).join("\n")]),
  ];
  const basis =
    "USD a month at list prices. Both sides by today's planner and prices: only what the stacks say differs.";
  const head = changes.length === 0 ? "Nothing that costs changes." : `Expected: ${headline(total)} a month.`;
  return `${[`### Cost: ${before} -> ${after}`, head, basis, table, ...lists, ...(stale === null ? [] : [stale])].join("\n\n")}\n`;
}

function headline({ before, after }: Changed): string {
  const was = before === null ? "nothing" : `${amountText(before.expected)} USD`;
  const is = after === null ? "nothing" : `${amountText(after.expected)} USD`;
  return `${was} -> ${is} (${changeText(before?.expected ?? null, after?.expected ?? null)})`;
}

function rowOf({ kind, name, before, after }: Changed): string[] {
  const changes = levels.map((level) => changeText(before?.[level] ?? null, after?.[level] ?? null));
  const state = before === null ? "new" : after === null ? "gone" : "";
  return [
    kind === "total" ? "total" : `${kind}${state === "" ? "" : `, ${state}`}`,
    kind === "total" ? "" : name,
    ...changes,
    after === null ? "-" : amountText(after.expected),
  ];
}

/** `+1,234.00`, `-5.00 to +8.00`, `0.00`, or `unknown` where one of the two has a part that nobody can bound. */
export function changeText(before: Amount | null, after: Amount | null): string {
  const none: Amount = sumOf([]);
  const [was, is] = [before ?? none, after ?? none];
  if (JSON.stringify(was) === JSON.stringify(is)) return "0.00";
  const ends = [is.lowMicroUsd - was.lowMicroUsd, is.highMicroUsd - was.highMicroUsd].toSorted((a, b) => a - b);
  const [low, high] = ends.map(signed);
  const range = low === high ? String(low) : `${low} to ${high}`;
  const gaps = is.unbounded.filter((name) => !was.unbounded.includes(name)).length > 0;
  return gaps ? `${range}, and unknown` : range;
}

function signed(microUsd: number): string {
  const cents = Math.round(microUsd / 10_000);
  return cents > 0 ? `+${centsText(cents)}` : centsText(cents);
}
