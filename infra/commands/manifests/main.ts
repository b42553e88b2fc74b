import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { PenstockError, toPenstockError } from "../../../runtime/contracts/errors.ts";
import { planStack } from "../../plan/plan-stack.ts";
import { loadStack } from "../../stack/load.ts";
import { renderKubernetes } from "./render.ts";
import { writeRendering } from "./write.ts";

const help = `Writes every Kubernetes object of a stack as YAML, without a cloud account or a cluster.

Usage: npm run manifests -- STACK --out DIR

  STACK        name of a file in stacks/, such as azure-prod for stacks/Pulumi.azure-prod.yaml
  --out DIR    folder to write to; one file an object, and README.md lists them
  --json       print all of it as JSON instead
  --help
`;

function parse() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { out: { type: "string" }, json: { type: "boolean" }, help: { type: "boolean", short: "h" } },
    });
  } catch (cause) {
    throw new PenstockError("invalid_config", `${cause instanceof Error ? cause.message : String(cause)}; see --help`);
  }
}

async function main(): Promise<void> {
  const { values, positionals } = parse();
  if (values.help === true) {
    process.stdout.write(help);
    return;
  }
  const [stackName, ...others] = positionals;
  const isJson = values.json === true;
  if (stackName === undefined || !/^[a-zA-Z0-9._-]+$/.test(stackName) || others.length > 0) {
    throw new PenstockError("invalid_config", "Name one stack, such as azure-prod; see --help.");
  }
  if (!isJson && values.out === undefined) {
    throw new PenstockError("invalid_config", "Name a folder with --out, or ask for --json; see --help.");
  }
  const file = fileURLToPath(new URL(`../../../stacks/Pulumi.${stackName}.yaml`, import.meta.url));
  const plan = planStack(await loadStack(file), { stackName });
  if (plan.cloud === "local") {
    process.stdout.write(`${stackName} is one machine: \`npm start\` serves it, and nothing of it is in Kubernetes.\n`);
    return;
  }
  const rendering = await renderKubernetes(plan);
  if (isJson) {
    process.stdout.write(`${JSON.stringify(rendering, null, 2)}\n`);
    return;
  }
  await writeRendering(stackName, rendering, values.out ?? ".");
  const { manifests, releases } = rendering;
  process.stdout.write(
    `${manifests.length} objects and ${releases.length} charts of ${stackName} are in ${values.out}\n`,
  );
}

try {
  await main();
} catch (thrown) {
  const error = toPenstockError(thrown);
  const detail = error.code === "internal_error" && error.cause instanceof Error ? `\n${error.cause.stack}` : "";
  process.stderr.write(`manifests: ${error.message}${detail}\n`);
  process.exitCode = error.code === "invalid_config" ? 2 : 1;
}
