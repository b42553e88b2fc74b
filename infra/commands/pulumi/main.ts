import { spawn } from "node:child_process";
import { once } from "node:events";
import { access, constants } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { runCommand } from "../cli.ts";
import { plannedStack } from "../stack-files.ts";

const help = `Runs Pulumi on a stack, after the plan was checked and with the policies of policies/.

Usage: npm run preview -- STACK [Pulumi's options]
       npm run up -- STACK [Pulumi's options]
       npm run down -- STACK [Pulumi's options]

  STACK     such as azure-prod for stacks/Pulumi.azure-prod.yaml
  --help    this; \`pulumi up --help\` lists Pulumi's own options, such as --yes, --diff, --target

Needs the Pulumi CLI (pulumi.com/docs/install), a login (\`pulumi login\`; PULUMI_CONFIG_PASSPHRASE for a backend of your own),
and the cloud's own: \`az login\`, or AWS_PROFILE. It always refreshes first: autoscalers change what Pulumi once wrote.
`;

const { env } = process;
const repository = fileURLToPath(new URL("../../../", import.meta.url));

/** What each script asks Pulumi for. Without policies where nothing is made. */
const verbs = {
  preview: ["preview", "--policy-pack", "policies"],
  up: ["up", "--policy-pack", "policies"],
  down: ["destroy"],
} as const;

async function main(): Promise<void> {
  const [verb = "", stackName, ...options] = process.argv.slice(2);
  if (stackName === undefined || stackName === "--help" || stackName === "-h") {
    process.stdout.write(help);
    return;
  }
  const known = Object.entries(verbs).find(([name]) => name === verb);
  if (known === undefined)
    throw new PenstockError("invalid_config", `${verb}: one of ${Object.keys(verbs).join(", ")}.`);
  // Mistakes are told in a second, and not after the engine has started and the cloud was asked.
  const { plan } = await plannedStack(stackName);
  if (plan.cloud === "local") {
    throw new PenstockError("invalid_config", `The stack ${stackName} is one machine: \`npm start\` serves it.`);
  }
  const pulumi = await find("pulumi");
  if (pulumi === null) {
    throw new PenstockError(
      "invalid_config",
      "The Pulumi CLI is not on PATH; install it (pulumi.com/docs/install), or see `npm run plan` and `npm run manifests`, which do without.",
    );
  }
  const [, words] = known;
  const child = spawn(pulumi, [...words, "--stack", stackName, "--refresh", ...options], {
    cwd: repository,
    stdio: "inherit",
  });
  // Ctrl-C reaches Pulumi too, which stops cleanly; this process waits for it.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => undefined);
  const [code] = await once(child, "exit");
  process.exitCode = typeof code === "number" ? code : 1;
}

async function find(program: string): Promise<string | null> {
  for (const folder of (env["PATH"] ?? "").split(delimiter)) {
    const path = join(folder, program);
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (folder !== "" && isThere) return path;
  }
  return null;
}

await runCommand("pulumi", main);
