import { format } from "prettier";
import { describe, expect, test } from "vitest";
import { defaultAssumptions } from "../../infra/cost/assumptions.ts";
import { costReport } from "../../infra/cost/cost-report.ts";
import { changeText, costDifference, differenceText } from "../../infra/cost/difference.ts";
import { documentOf } from "../../infra/cost/document.ts";
import { focusRows } from "../../infra/cost/focus.ts";
import { htmlPage } from "../../infra/cost/html.ts";
import { markdownText } from "../../infra/cost/markdown.ts";
import { sumOf, type Amount } from "../../infra/cost/money.ts";
import type { CostReport } from "../../infra/cost/report.ts";
import { terminalText } from "../../infra/cost/terminal.ts";
import { parseWhatIf } from "../../infra/cost/what-if.ts";
import { planStack } from "../../infra/plan/plan-stack.ts";
import type { CloudStack } from "../../infra/stack/schema.ts";
import { planOf, stackOf } from "../support/plans.ts";
import { awsStack, fleet, planned } from "../support/stacks.ts";

const assumptions = defaultAssumptions("2026-11-21");

async function reportOf(name: "aws-dev" | "aws-prod" | "azure-dev" | "azure-prod"): Promise<CostReport> {
  return costReport(await planOf(name), assumptions);
}

describe.each(["aws-dev", "aws-prod", "azure-dev", "azure-prod"] as const)("%s", (name) => {
  test("reads as was agreed on (`vitest -u` takes a change)", async () => {
    const text = await format(markdownText(documentOf(await reportOf(name))), { parser: "markdown", printWidth: 120 });
    await expect(text).toMatchFileSnapshot(`../golden/cost/${name}.md`);
  });

  test("every table's columns of USD add up to its total to the cent", async () => {
    const { sections } = documentOf(await reportOf(name));
    let checked = 0;
    for (const section of sections) {
      if (section.kind !== "table" || !section.hasTotal || section.id === "summary") continue;
      for (const [at] of section.columns.entries()) {
        const cells = section.rows.map((row) => row[at] ?? "");
        if (!cells.every((cell) => /^[\d,]+\.\d\d$/.test(cell))) continue;
        const cents = cells.map((cell) => Math.round(Number(cell.replaceAll(",", "")) * 100));
        expect(cents.slice(0, -1).reduce((sum, each) => sum + each, 0)).toBe(cents.at(-1));
        checked += 1;
      }
    }
    expect(checked).toBeGreaterThanOrEqual(3);
  });

  test("the page loads nothing and runs nothing", async () => {
    const page = htmlPage(await reportOf(name));
    expect(page).not.toMatch(/<script|<link|<img|<iframe|@import|url\(|\son\w+=|https?:/i);
    expect(page).toContain('name="viewport"');
    expect(page).toContain("prefers-color-scheme: dark");
    expect(page).toContain("@media print");
    for (const tag of ["section", "table", "svg", "ul", "li", "figure", "tr", "div"]) {
      expect(page.split(`</${tag}>`).length, tag).toBe(page.split(new RegExp(`<${tag}[ >]`)).length);
    }
    // No bar leaves its chart.
    for (const [, x, width] of page.matchAll(/ x="([\d.]+)" width="([\d.]+)"/g)) {
      expect(Number(x) + Number(width)).toBeLessThanOrEqual(1001);
    }
  });
});

test("the terminal's columns stand below each other", async () => {
  const text = terminalText(documentOf(await reportOf("azure-prod")));
  const lines = text.split("\n");
  const at = lines.findIndex((line) => line.startsWith("Pools, USD a month"));
  const table = lines.slice(at + 2, at + 8);
  expect(new Set(table.map((line) => line.length)).size).toBe(1);
  expect(table.at(-1)).toMatch(/^Total .*189,672\.98$/);
  expect(text).toContain("! The catalogue is old: ");
});

test("names from a stack file are text, in HTML and in Markdown", async () => {
  const plan = await planOf("aws-dev");
  const name = `<img src=x onerror=alert(1)>|"'&`;
  const report = costReport(
    { ...plan, displayName: name, fleets: plan.fleets.map((each) => ({ ...each, name })) },
    assumptions,
  );
  expect(htmlPage(report)).not.toContain("<img");
  expect(htmlPage(report)).toContain("&lt;img src=x onerror=alert(1)&gt;|&quot;&#39;&amp;");
  expect(markdownText(documentOf(report))).toContain(`| <img src=x onerror=alert(1)>\\|"'& |`);
});

describe("FOCUS", () => {
  const cellsOf = (line: string): string[] =>
    [...`,${line}`.matchAll(/,(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(
      ([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain ?? "",
    );

  /** Rows by column. */
  function rowsOf(csv: string): Record<string, string>[] {
    const [head = [], ...rows] = csv.trimEnd().split("\n").map(cellsOf);
    return rows.map((row) => Object.fromEntries(head.map((column, at) => [column, row[at] ?? ""])));
  }

  test("has the 57 columns of version 1.2, and ours", async () => {
    const head =
      focusRows(await reportOf("azure-prod"), "expected")
        .split("\n")[0]
        ?.split(",") ?? [];
    expect(head.filter((column) => !column.startsWith("x_"))).toHaveLength(57);
    expect(head.slice(0, 3)).toEqual(["AvailabilityZone", "BilledCost", "BillingAccountId"]);
    expect(new Set(head).size).toBe(head.length);
  });

  test.each(["minimum", "expected", "maximum"] as const)("adds up to the report's total at the %s", async (level) => {
    const report = await reportOf("azure-prod");
    const rows = rowsOf(focusRows(report, level));
    const sum = rows.reduce((all, { ListCost }) => all + Math.round(Number(ListCost ?? "") * 1_000_000), 0);
    expect(sum).toBe(report.total[level].lowMicroUsd);
    for (const row of rows)
      expect(row).toMatchObject({ ChargeCategory: "Usage", BillingCurrency: "USD", RegionId: "eastus2" });
  });

  test("leaves a cost empty that nobody knows", async () => {
    const rows = rowsOf(focusRows(await reportOf("azure-prod"), "expected"));
    const spot = rows.find(({ PricingCategory }) => PricingCategory === "Dynamic");
    expect(spot).toMatchObject({
      ListCost: "",
      EffectiveCost: "",
      x_PriceIsKnown: "false",
      x_UpperBoundCost: "19362.520000",
    });
    const redis = rows.find(({ ResourceId }) => ResourceId === "redis");
    expect(redis).toMatchObject({ ListCost: "", x_UpperBoundCost: "" });
    const nat = rows.find(({ ResourceId }) => ResourceId === "nat");
    expect(nat).toMatchObject({
      ListCost: "32.850000",
      ListUnitPrice: "0.045",
      ConsumedQuantity: "730",
      ConsumedUnit: "Hours",
      BillingPeriodStart: "2026-11-01T00:00:00Z",
      BillingPeriodEnd: "2026-12-01T00:00:00Z",
    });
    expect(JSON.parse(nat?.["Tags"] ?? "")).toMatchObject({ "cost-center": "ai-platform" });
  });

  test("no cell is a formula", async () => {
    const plan = await planOf("aws-dev");
    const evil = { ...plan, pools: plan.pools.map((pool) => ({ ...pool, group: "=cmd()" })) };
    const report = costReport(
      { ...evil, fleets: evil.fleets.map((each) => ({ ...each, pool: "=cmd()" })) },
      assumptions,
    );
    expect(focusRows(report, "maximum")).toContain(",'=cmd(),");
  });
});

describe("a difference", () => {
  const one = planned(awsStack);
  const two = planned({ ...awsStack, fleets: [{ ...fleet, replicas: { min: 2, max: 4 } }] });
  const before = { name: "main", report: costReport(one, assumptions) };
  const after = { name: "change", report: costReport(two, assumptions) };

  test("tells what changed and by how much", () => {
    const difference = costDifference(before, after);
    // One L40S node more at the minimum; at the maximum the pool's 4 nodes in both.
    const pool = difference.changes.find(({ kind }) => kind === "pool");
    expect(pool).toMatchObject({ name: "gpus" });
    const text = differenceText(difference);
    expect(text).toContain("### Cost: main -> change");
    expect(text).toContain("| pool | gpus | +1,636.72 | +2,291.41 | 0.00 | 4,582.81 |");
    // 0.8 more GPU nodes of 256 GB (28.67 with 1.4 times 0.08 x 256) beside the node itself.
    expect(difference.riseMicroUsd / 1_000_000).toBeCloseTo(1.4 * (2.24208 * 730 + 256 * 0.08), 3);
    expect(difference.changes.some(({ name }) => name === "NAT gateways (one for all zones)")).toBe(false);
  });

  test("the other way is the same with the other sign", () => {
    const there = costDifference(before, after);
    const back = costDifference(after, before);
    expect(back.riseMicroUsd).toBe(-there.riseMicroUsd);
    expect(differenceText(back)).toContain("-1,636.72");
  });

  test("old prices are named, and that only the stacks differ", () => {
    const text = differenceText(costDifference(before, after));
    expect(text).toContain("The catalogue is old: ");
    expect(text).toContain("Both sides by today's planner and prices");
    const fresh = costReport(two, { ...assumptions, today: "2026-08-22" });
    expect(differenceText(costDifference(before, { name: "fresh", report: fresh }))).not.toContain("catalogue is old");
  });

  test("nothing changed is said so", () => {
    const same = costDifference(before, { name: "same", report: before.report });
    expect(same).toMatchObject({ changes: [], riseMicroUsd: 0, newlyUnknown: [], capChanges: [] });
    expect(differenceText(same)).toContain("Nothing that costs changes.");
  });

  test("a stack that was not there is new in every line", () => {
    const text = differenceText(costDifference({ name: "nothing", report: null }, after));
    expect(text).toContain("| pool, new | gpus |");
    expect(text).toContain("- gpus: not there -> 4 nodes");
  });

  test("what is unknown now is named, and no number hides it", async () => {
    const old = await reportOf("aws-dev");
    const prod = await reportOf("azure-prod");
    const difference = costDifference({ name: "a", report: old }, { name: "b", report: prod });
    expect(difference.newlyUnknown).toContain("Redis (Balanced_B3, two nodes)");
    const text = differenceText(difference);
    expect(text).toContain("and unknown");
    expect(text).toContain("Unknown now, and in no sum:\n\n- ");
    const unknown: Amount = { lowMicroUsd: 0, highMicroUsd: 0, unknown: ["x"], unbounded: ["x"] };
    expect(changeText(sumOf([]), unknown)).toBe("0.00, and unknown");
    expect(changeText(unknown, unknown)).toBe("0.00");
  });
});

describe("--what-if", () => {
  async function changed(text: string): Promise<CostReport> {
    const stack = await stackOf("aws-prod");
    if (stack.cloud === "local") throw new Error("aws-prod is on a cloud");
    const whatIf = parseWhatIf(text);
    const plan = planStack(whatIf.stack(stack), { stackName: "aws-prod" });
    if (plan.cloud === "local") throw new Error("aws-prod is on a cloud");
    return costReport(plan, whatIf.assumptions(assumptions));
  }

  test("replicas, nodes, capacity, and what is supposed", async () => {
    const large = (await changed("replicas=large:4")).fleets.find(({ name }) => name === "large");
    expect(large?.replicas).toEqual({ minimum: 4, expected: 4, maximum: 4 });
    const nodes = await changed("replicas=large:2-8,nodes=h100:4");
    expect(nodes.pools.find(({ name }) => name === "h100")?.nodes.maximum).toBe(4);
    const bought = await changed("capacity=single:on-demand");
    expect(bought.capacity).toMatchObject([{ capacity: "on-demand", share: 1 }]);
    const spot = await changed("capacity=h100:spot");
    expect(spot.pools.find(({ name }) => name === "h100")?.variants.map(({ capacity }) => capacity)).toEqual(["spot"]);
    const most = await changed("expected=1,utilisation=0.8,prompt=0.5,logs=100");
    expect(most.assumptions).toMatchObject({
      expected: 1,
      utilisation: 0.8,
      promptTokenWeight: 0.5,
      logsGiBPerMonth: 100,
    });
    expect(
      (await changed("share=llama-3.1-8b:0.7,share=qwen3-8b:0.3")).models.find(({ id }) => id === "qwen3-8b")?.share,
    ).toBe(0.3);
  });

  test("the planner still refuses what does not fit, with the remedy", async () => {
    await expect(changed("replicas=large:2-8")).rejects.toThrow(/maxNodes: 2, .*raise it to 4/);
  });

  test.each([
    ["replicas", "is no change; write key=value"],
    ["speed=2", "`speed` is none of replicas, nodes"],
    ["replicas=5-2", "the maximum must be at least"],
    ["replicas=many", "write a number such as 3"],
    ["capacity=single:free", "free is none of reserved, spot, on-demand, block"],
    ["expected=2", "from 0 to 1"],
    ["utilisation=0", "more than 0"],
    ["share=0.5", "share needs a model"],
    ["replicas=nobody:3", "there is no fleet `nobody`; there are large, small"],
    ["nodes=nothing:3", "there is no pool `nothing`; there are h100, single"],
  ])("%s is refused", async (text, problem) => {
    await expect(changed(text)).rejects.toThrow(problem);
  });

  test("a stack on Azure keeps its type", async () => {
    const stack = await stackOf("azure-dev");
    if (stack.cloud !== "azure") throw new Error("azure-dev is on Azure");
    const same: CloudStack = parseWhatIf("expected=0.5").stack(stack);
    expect(same).toStrictEqual(stack);
  });
});
