import type { CostDocument, List, Table } from "./table.ts";

/** The document as text for a terminal. */
export function terminalText({ title, subtitle, warnings, sections }: CostDocument): string {
  const head = [title, subtitle, ...warnings.map((warning) => `! ${warning}`)];
  return `${[head.join("\n"), ...sections.map(sectionText)].join("\n\n")}\n`;
}

function sectionText(section: Table | List): string {
  const underline = "-".repeat(section.title.length);
  if (section.kind === "list") {
    return [section.title, underline, ...section.lines.map((line) => `- ${line}`)].join("\n");
  }
  const note = section.note === undefined ? [] : [section.note];
  return [section.title, underline, ...tableLines(section), ...note].join("\n");
}

/** Columns two spaces apart; the last one of text is not padded. */
function tableLines({ columns, rows, hasTotal }: Table): string[] {
  const all = [columns.map(({ name }) => name), ...rows];
  const widths = columns.map((_, at) => Math.max(...all.map((row) => (row[at] ?? "").length)));
  const line = (row: readonly string[]): string =>
    columns
      .map(({ align }, at) => {
        const width = widths[at] ?? 0;
        return align === "right" ? (row[at] ?? "").padStart(width) : (row[at] ?? "").padEnd(width);
      })
      .join("  ")
      .trimEnd();
  const lines = all.map(line);
  const rule = widths.map((width) => "-".repeat(width)).join("  ");
  return hasTotal ? [...lines.slice(0, -1), rule, ...lines.slice(-1)] : lines;
}
