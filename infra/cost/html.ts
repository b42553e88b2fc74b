import { chartsOf, legendOf } from "./charts.ts";
import { documentOf } from "./document.ts";
import { escaped } from "./escape.ts";
import { amountText, hourly, type Amount } from "./money.ts";
import type { CostReport } from "./report.ts";
import { style } from "./style.ts";
import type { CostDocument, List, Table } from "./table.ts";

/** A report as a page with its charts. */
export function htmlPage(report: CostReport): string {
  const charts = `<section class="charts">\n${legendOf(report)}\n${chartsOf(report)}\n</section>`;
  return pageOf(documentOf(report), `${cards(report)}\n${charts}`);
}

/** One page that stands alone: it loads nothing, runs nothing, prints, and follows the reader's light or dark setting. */
export function pageOf({ title, subtitle, warnings, sections }: CostDocument, top = ""): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(title)}</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>${escaped(title)}</h1>
<p class="quiet">${escaped(subtitle)}</p>
${warnings.map((warning) => `<p class="warning">${prose(warning)}</p>`).join("\n")}
</header>
<main>
${top}
${sections.map(section).join("\n")}
</main>
</body>
</html>
`;
}

function cards({ total, budget, idle, pools }: CostReport): string {
  const gpus = pools.reduce((sum, pool) => sum + pool.gpus.maximum, 0);
  const all = [
    ["Expected, a month", short(total.expected), `minimum ${short(total.minimum)}`],
    ["Maximum, a month", short(total.maximum), `budget ${whole(budget.monthlyUsd * 1_000_000)}`],
    [
      "Maximum, an hour",
      amountText(hourly(total.maximum)),
      budget.hourlyUsd === null ? "no hourly budget" : `budget ${budget.hourlyUsd.toFixed(2)}`,
    ],
    ["Idle, a month", short(idle), "nodes at their minimum that do nothing"],
    ["GPUs at most", gpus.toString(), budget.maxGpus === null ? "no budget of GPUs" : `budget ${budget.maxGpus}`],
  ];
  return `<section class="cards">${all.map(card).join("")}</section>`;
}

function card([name, value, note]: readonly string[]): string {
  return (
    `<div class="card"><h2>${escaped(name ?? "")}</h2><p class="value">${escaped(value ?? "")}</p>` +
    `<p class="quiet">${escaped(note ?? "")}</p></div>`
  );
}

/** An amount in whole USD. */
function short(amount: Amount): string {
  const [low, high] = [whole(amount.lowMicroUsd), whole(amount.highMicroUsd)];
  const text = low === high ? low : `${low} to ${high}`;
  return amount.unbounded.length > 0 ? `at least ${text}` : text;
}

function whole(microUsd: number): string {
  return Math.round(microUsd / 1_000_000)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ",");
}

function section(each: Table | List): string {
  const body = each.kind === "list" ? listOf(each) : tableOf(each);
  return `<section id="${each.id}"><h2>${escaped(each.title)}</h2>${body}</section>`;
}

function listOf({ lines }: List): string {
  return `<ul>${lines.map((line) => `<li>${prose(line)}</li>`).join("")}</ul>`;
}

function tableOf({ columns, rows, hasTotal, note }: Table): string {
  const cell = (tag: "td" | "th") => (text: string, at: number) =>
    `<${tag}${columns[at]?.align === "right" ? ' class="number"' : ""}>${escaped(text)}</${tag}>`;
  const line = (row: readonly string[], at: number): string =>
    `<tr${hasTotal && at === rows.length - 1 ? ' class="total"' : ""}>${row.map(cell("td")).join("")}</tr>`;
  const head = `<thead><tr>${columns
    .map(({ name }) => name)
    .map(cell("th"))
    .join("")}</tr></thead>`;
  const table = `<div class="wide"><table>${head}<tbody>${rows.map(line).join("")}</tbody></table></div>`;
  return note === undefined ? table : `${table}<p class="quiet">${prose(note)}</p>`;
}

/** A sentence; what stands in backticks is code. */
function prose(text: string): string {
  return escaped(text).replaceAll(/`([^`]+)`/g, "<code>$1</code>");
}
