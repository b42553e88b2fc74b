import { parseArgs } from "node:util";
import { environmentOf, judge } from "../../../policies/judge.ts";
import type { Environment } from "../../../policies/rule.ts";
import { rules } from "../../../policies/rules.ts";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { parsed, runCommand } from "../cli.ts";
import { oneStack, plannedStack } from "../stack-files.ts";
import { plannedResources } from "./resources.ts";
import { rulesTable } from "./table.ts";
import { passes, verdictText, type Verdict } from "./text.ts";

const help = `Judges a stack by the policies: its plan, its cost, and every resource that it would make.
Needs no cloud account and no Pulumi CLI, and changes nothing. Ends with 1 when something mandatory is broken.

Usage: npm run policy -- STACK [--environment dev|prod] [--json]
       npm run policy -- --rules

  STACK              name of a stack in stacks/, such as azure-prod, or the path of a Pulumi.<stack>.yaml
  --environment ENV  judge it as if it were of this environment: what would keep a dev stack from production?
  --json             the verdict as JSON
  --rules            prints every rule as a table in Markdown
  --help
`;

const options = {
  environment: { type: "string" },
  json: { type: "boolean", default: false },
  rules: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
} as const;

await runCommand("policy", async () => {
  const { values, positionals } = parsed(() => parseArgs({ allowPositionals: true, options }));
  if (values.help) {
    process.stdout.write(help);
    return;
  }
  if (values.rules) {
    process.stdout.write(rulesTable());
    return;
  }
  const name = await oneStack(positionals);
  const asked = environmentNamed(values.environment);
  const { stack, plan } = await plannedStack(name);
  if (plan.cloud === "local" || stack.cloud === "local") {
    const nothing = { stack: plan.stack, rules: 0, resources: 0, violations: [] };
    const said = `${plan.stack} is one machine: nothing of it is provisioned, so there is nothing to judge.\n`;
    process.stdout.write(values.json ? `${JSON.stringify(nothing, null, 2)}\n` : said);
    return;
  }
  const environment = asked ?? environmentOf(plan);
  const today = new Date().toISOString().slice(0, "2026-11-21".length);
  const resources = await plannedResources(stack, plan.stack);
  const verdict: Verdict = {
    stack: plan.stack,
    environment,
    rules: rules.filter(({ levels }) => levels[environment] !== "off").length,
    resources: resources.length,
    violations: judge({ plan, resources }, { today, environment }),
  };
  process.stdout.write(values.json ? `${JSON.stringify(verdict, null, 2)}\n` : verdictText(verdict));
  if (!passes(verdict)) process.exitCode = 1;
});

function environmentNamed(name: string | undefined): Environment | null {
  if (name === undefined) return null;
  if (name === "dev" || name === "prod") return name;
  throw new PenstockError("invalid_config", `--environment is dev or prod, not ${name}.`);
}
