import { parseArgs } from "node:util";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { parsed, runCommand } from "../cli.ts";
import { oneStack, plannedStack } from "../stack-files.ts";
import { renderKubernetes } from "./render.ts";
import { writeRendering } from "./write.ts";

const help = `Writes every Kubernetes object of a stack as YAML, without a cloud account or a cluster.

Usage: npm run manifests -- STACK --out DIR

  STACK        name of a stack in stacks/, such as azure-prod, or the path of a Pulumi.<stack>.yaml
  --out DIR    folder to write to; one file an object, and README.md lists them
  --json       print all of it as JSON instead
  --help
`;

const options = {
  out: { type: "string" },
  json: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
} as const;

await runCommand("manifests", async () => {
  const { values, positionals } = parsed(() => parseArgs({ allowPositionals: true, options }));
  if (values.help) {
    process.stdout.write(help);
    return;
  }
  const name = await oneStack(positionals);
  if (!values.json && values.out === undefined) {
    throw new PenstockError("invalid_config", "Name a folder with --out, or ask for --json; see --help.");
  }
  const { plan } = await plannedStack(name);
  if (plan.cloud === "local") {
    process.stdout.write(
      `${plan.stack} is one machine: \`npm start\` serves it, and nothing of it is in Kubernetes.\n`,
    );
    return;
  }
  const rendering = await renderKubernetes(plan);
  if (values.out !== undefined) {
    await writeRendering(plan.stack, rendering, values.out);
    const { manifests, releases } = rendering;
    const said = `${manifests.length} objects and ${releases.length} charts of ${plan.stack} are in ${values.out}\n`;
    (values.json ? process.stderr : process.stdout).write(said);
  }
  if (values.json) process.stdout.write(`${JSON.stringify(rendering, null, 2)}\n`);
});
