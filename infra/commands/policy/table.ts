import { rules } from "../../../policies/rules.ts";

/** Every rule as a table in Markdown, which docs/policies.md has. */
export function rulesTable(): string {
  const rows = rules.map(
    ({ id, title, levels, severity, judges, remedy }) =>
      `| \`${id}\` | ${title} | ${judges} | ${levels.dev} | ${levels.prod} | ${severity} | ${remedy} |`,
  );
  const head = [
    "| rule | what holds | judges | dev | prod | severity | what to do |",
    "| --- | --- | --- | --- | --- | --- | --- |",
  ];
  return `${[...head, ...rows].join("\n")}\n`;
}
