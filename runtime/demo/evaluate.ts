import { parseArgs } from "node:util";
import { evaluateEndpoint, type Scorecard } from "./score.ts";

const help = `Scores an OpenAI-compatible endpoint with the demo model's evaluation.

Usage: npm run demo:evaluate -- [options]

  --url URL      where to ask, up to /v1 (default http://127.0.0.1:8082/v1)
  --key KEY      API key
  --model NAME   which model (default: the first that the endpoint lists)
  --json         print the whole scorecard as JSON
`;

/** A line for each group, the failed cases under it, and the total. */
export function scoreTable({ results, score, passingScore }: Scorecard): string {
  const lines: string[] = [];
  for (const [group, cases = []] of Object.entries(Object.groupBy(results, (result) => result.group))) {
    const count = cases.filter((result) => result.passed).length;
    lines.push(`${group.padEnd(14)} ${String(count).padStart(3)} of ${cases.length}`);
    for (const { passed, detail } of cases) if (!passed) lines.push(`    ${detail}`);
  }
  const total = results.filter((result) => result.passed).length;
  lines.push(`${"all".padEnd(14)} ${String(total).padStart(3)} of ${results.length}`);
  lines.push(`score ${(score * 100).toFixed(1)} %, needed ${passingScore * 100} %`);
  return `${lines.join("\n")}\n`;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      url: { type: "string", default: "http://127.0.0.1:8082/v1" },
      key: { type: "string" },
      model: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) process.stdout.write(help);
  else {
    const card = await evaluateEndpoint({ url: values.url, apiKey: values.key, model: values.model });
    process.stdout.write(values.json ? `${JSON.stringify(card, null, 2)}\n` : scoreTable(card));
    if (card.score < card.passingScore) process.exitCode = 1;
  }
}
