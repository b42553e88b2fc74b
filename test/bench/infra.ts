import { execFile } from "node:child_process";
import { parseArgs, promisify } from "node:util";
import { stackOf } from "../support/plans.ts";
import { awsMocks } from "../support/pulumi/aws.ts";
import { azureMocks } from "../support/pulumi/azure.ts";
import { runProgram } from "../support/pulumi/engine.ts";
import { repository } from "../support/repository.ts";
import { printFigures, repeat, seconds, type Figure } from "./figures.ts";

const help = `Measures how long infrastructure code takes before a cloud is asked, each time in a process of its own.

Usage: npm run bench:infra -- [--runs 5] [--json]

  --runs N   repeats of each measurement; the median is printed
`;

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "5" },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

/** Seconds of a program of this repository, which must end well. */
async function program(...words: readonly string[]): Promise<number> {
  const started = performance.now();
  await promisify(execFile)(process.execPath, words, { cwd: repository, maxBuffer: 2 ** 28 });
  return seconds(started);
}

/** Seconds of the SDK's own `cmd/run` with the stack's program, and a stand-in for Pulumi's engine behind it. */
async function update(stack: "azure-prod" | "aws-prod"): Promise<number> {
  const mocks = stack === "azure-prod" ? azureMocks : awsMocks;
  const ran = await runProgram({
    stack,
    config: {
      "penstock:stack": JSON.stringify(await stackOf(stack)),
      "penstock:tlsCertificate": "certificate",
      "penstock:tlsKey": "key",
    },
    secretKeys: ["penstock:tlsCertificate", "penstock:tlsKey"],
    outputs: (made) => mocks.answer(made) ?? {},
    invoke: (token) => mocks.call(token),
  });
  if (ran.exitCode !== 0) throw new Error(ran.messages);
  return ran.wallMs / 1_000;
}

if (values.help) process.stdout.write(help);
else {
  const runs = Number(values.runs);
  const figures: Figure[] = [];
  const add = async (what: string, target: number | null, sample: () => Promise<number>): Promise<void> => {
    figures.push({ what, value: await repeat(runs, sample), unit: "s", target });
  };
  await add("program start to plan, azure-prod", 1.5, () =>
    program("infra/commands/plan/main.ts", "azure-prod", "--json"),
  );
  await add("program start to plan, aws-prod", 1.5, () => program("infra/commands/plan/main.ts", "aws-prod", "--json"));
  await add("every Kubernetes object of azure-prod", null, () =>
    program("infra/commands/manifests/main.ts", "azure-prod", "--json"),
  );
  for (const stack of ["azure-prod", "aws-prod"] as const) {
    await add(`whole deployment of ${stack}, mocks`, 4, () => program("test/bench/infra-mocks.ts", stack));
    await add(`the same in the SDK's own process, stand-in engine`, null, () => update(stack));
  }
  await add("type check of the repository", 10, () => program("node_modules/.bin/tsc", "-p", "."));
  printFigures(figures, values.json);
}
