import { escaped } from "./escape.ts";
import { amountText, sumOf, type Amount } from "./money.ts";
import { levels, type CostReport, type Level } from "./report.ts";

/** Width of a chart in its own units; the page stretches it. Texts stand beside it, so that they stay readable. */
const width = 1000;
const height = 24;

/** Colours of `style.ts` for parts of a bar; pools beyond them start anew. */
const poolColours = 5;

interface Part {
  readonly name: string;
  readonly colour: string;
  readonly amount: Amount;
}

/** Every colour with its name. */
export function legendOf({ pools }: CostReport): string {
  const entries = [
    ...pools.map(({ name }, at) => ({ name, colour: `pool${at % poolColours}` })),
    { name: "shared", colour: "shared" },
    { name: "hidden floor", colour: "floor" },
  ];
  const marks = entries.map(({ name, colour }) => `<li><i class="${colour}"></i>${escaped(name)}</li>`).join("");
  return `<ul class="legend">${marks}<li><i class="perhaps"></i>pale: perhaps, up to the price on demand</li></ul>`;
}

/** Bars for each level, for what is shared, and for each shared item. */
export function chartsOf(report: CostReport): string {
  return [levelChart(report), floorChart(report), itemChart(report)].join("\n");
}

function levelChart(report: CostReport): string {
  const budget = report.budget.monthlyUsd * 1_000_000;
  const scale = Math.max(budget, ...levels.map((level) => report.total[level].highMicroUsd)) * 1.02;
  const bars = levels.map((level) =>
    bar(level, amountText(report.total[level]), { parts: partsOf(report, level), scale, mark: budget }),
  );
  return chart("A month, by pool", `${bars.join("")}<p class="quiet">The line is the budget of a month.</p>`);
}

function floorChart(report: CostReport): string {
  const bars = levels.map((level) => {
    const { highMicroUsd } = report.total[level];
    const share = highMicroUsd === 0 ? 0 : (report.hiddenFloor[level].highMicroUsd / highMicroUsd) * 100;
    return bar(level, `${share.toFixed(share < 1 ? 2 : 1)} % hidden`, {
      parts: sharedParts(report, level).toReversed(),
      scale: Math.max(1, highMicroUsd),
      mark: null,
    });
  });
  return chart("Hidden floor and other shared items, of the whole", bars.join(""));
}

function itemChart({ shared }: CostReport): string {
  const items = shared
    .filter(({ cost }) => cost.expected.highMicroUsd > 0)
    .toSorted((a, b) => b.cost.expected.highMicroUsd - a.cost.expected.highMicroUsd);
  const scale = items[0]?.cost.expected.highMicroUsd ?? 1;
  const bars = items.map(({ name, isHiddenFloor, cost }) => {
    const parts = [{ name, colour: isHiddenFloor ? "floor" : "shared", amount: cost.expected }];
    return bar(name, amountText(cost.expected), { parts, scale, mark: null });
  });
  const unknown = shared.filter(({ cost }) => cost.expected.unbounded.length > 0).map(({ name }) => name);
  const gaps = unknown.length === 0 ? "" : `<p class="quiet">Without a price: ${escaped(unknown.join(", "))}.</p>`;
  return chart("Shared items, expected, a month", `${bars.join("")}${gaps}`);
}

function partsOf(report: CostReport, level: Level): Part[] {
  const pools = report.pools.map(({ name, cost }, at) => ({
    name,
    colour: `pool${at % poolColours}`,
    amount: cost[level],
  }));
  return [...pools, ...sharedParts(report, level)];
}

function sharedParts({ shared, hiddenFloor }: CostReport, level: Level): Part[] {
  const open = shared.filter(({ isHiddenFloor }) => !isHiddenFloor);
  return [
    { name: "shared", colour: "shared", amount: sumOf(open.map(({ cost }) => cost[level])) },
    { name: "hidden floor", colour: "floor", amount: hiddenFloor[level] },
  ];
}

function chart(title: string, body: string): string {
  return `<figure><figcaption>${escaped(title)}</figcaption>${body}</figure>`;
}

interface Bar {
  readonly parts: readonly Part[];
  /** What the whole width is, in millionths of a USD. */
  readonly scale: number;
  /** Where a line stands; null for none. */
  readonly mark: number | null;
}

function bar(label: string, value: string, { parts, scale, mark }: Bar): string {
  const at = (microUsd: number): number => Math.round((microUsd / scale) * width * 100) / 100;
  let from = 0;
  const rectangle = (to: number, className: string, title: string): string => {
    const shape = `<rect class="${className}" x="${at(from)}" width="${at(to - from)}" height="${height}"><title>${escaped(title)}</title></rect>`;
    from = to;
    return to > 0 ? shape : "";
  };
  const shapes = parts.flatMap(({ name, colour, amount }) => {
    const title = `${name}: ${amountText(amount)}`;
    return [
      rectangle(from + amount.lowMicroUsd, colour, title),
      rectangle(from + Math.max(0, amount.highMicroUsd - amount.lowMicroUsd), `${colour} perhaps`, title),
    ];
  });
  const line = mark === null ? "" : `<rect class="mark" x="${at(mark)}" width="3" height="${height}"/>`;
  return (
    `<div class="bar"><span>${escaped(label)}</span>` +
    `<svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label="${escaped(`${label}: ${value}`)}">` +
    `<rect class="track" width="${width}" height="${height}"/>${shapes.join("")}${line}</svg>` +
    `<span class="number">${escaped(value)}</span></div>`
  );
}
