import { parseArgs } from "node:util";
import { parsed, runCommand } from "../cli.ts";
import { oneStack, plannedStack } from "../stack-files.ts";
import { planText } from "./text.ts";

const help = `Prints what a stack becomes: pools, fleets, models, what stands beside them, cost, and the reason of each.
Needs no cloud account and changes nothing.

Usage: npm run plan -- STACK [--json]

  STACK     name of a file in stacks/, such as azure-prod for stacks/Pulumi.azure-prod.yaml, or a path to such a file
  --json    the plan as JSON, as everything downstream reads it
  --help
`;

const options = {
  json: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
} as const;

async function main(): Promise<void> {
  const { values, positionals } = parsed(() => parseArgs({ allowPositionals: true, options }));
  if (values.help) {
    process.stdout.write(help);
    return;
  }
  const name = await oneStack(positionals);
  const { plan } = await plannedStack(name);
  process.stdout.write(values.json ? `${JSON.stringify(plan, null, 2)}\n` : planText(plan));
}

await runCommand("plan", main);
