import type { CostDocument, List, Table } from "./table.ts";

/** The document as Markdown. */
export function markdownText({ title, subtitle, warnings, sections }: CostDocument): string {
  const head = [`# ${title}`, subtitle, ...warnings.map((warning) => `> ${warning}`)];
  return `${[...head, ...sections.map(sectionText)].join("\n\n")}\n`;
}

/** A Markdown table; the last row in bold when it is the total. */
export function markdownTable({ columns, rows, hasTotal }: Pick<Table, "columns" | "rows" | "hasTotal">): string {
  const rule = columns.map(({ align }) => (align === "right" ? "---:" : "---"));
  const bold = rows.map((row, at) =>
    hasTotal && at === rows.length - 1 ? row.map((cell) => (cell === "" ? "" : `**${cell}**`)) : row,
  );
  return [line(columns.map(({ name }) => name)), `| ${rule.join(" | ")} |`, ...bold.map(line)].join("\n");
}

function sectionText(section: Table | List): string {
  const body = section.kind === "list" ? section.lines.map((text) => `- ${text}`).join("\n") : markdownTable(section);
  const note = section.kind === "table" && section.note !== undefined ? `\n\n${section.note}` : "";
  return `## ${section.title}\n\n${body}${note}`;
}

function line(cells: readonly string[]): string {
  return `| ${cells.map(escaped).join(" | ")} |`;
}

function escaped(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}
