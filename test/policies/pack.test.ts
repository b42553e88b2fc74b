import { beforeAll, describe, expect, test } from "vitest";
import type { Environment } from "../../policies/rule.ts";
import { rules } from "../../policies/rules.ts";
import { stackOf } from "../support/plans.ts";
import { awsMocks } from "../support/pulumi/aws.ts";
import { azureMocks } from "../support/pulumi/azure.ts";
import { runProgram, unknownValue, type Resource } from "../support/pulumi/engine.ts";
import { startPack, type Diagnostic } from "./analyzer.ts";
import type { CloudStackName } from "./subjects.ts";

/** A preview takes two seconds of a processor; a machine may have none to spare for long. */
const patienceMs = 240_000;

interface Preview {
  readonly config: Readonly<Record<string, string>>;
  readonly resources: readonly Resource[];
}

async function configOf(name: CloudStackName): Promise<Preview["config"]> {
  return {
    "penstock:stack": JSON.stringify(await stackOf(name)),
    "penstock:tlsCertificate": "certificate",
    "penstock:tlsKey": "key",
  };
}

/** What a first preview of a stack tells the engine: the program in a process of its own, everything unknown that can be. */
async function previewOf(name: CloudStackName): Promise<Preview> {
  const config = await configOf(name);
  const { call } = name.startsWith("aws") ? awsMocks : azureMocks;
  const { exitCode, messages, resources } = await runProgram({
    stack: name,
    config,
    secretKeys: ["penstock:tlsCertificate", "penstock:tlsKey"],
    preview: true,
    invoke: (token) => call(token),
  });
  expect(exitCode, messages).toBe(0);
  return { config, resources };
}

/** Every rule with its level in an environment, as the pack has it; `other` is off. */
function levelsIn(environment: Environment): Map<string, string> {
  return new Map(rules.map(({ id, levels: { [environment]: level } }) => [id, level === "off" ? "other" : level]));
}

const previews = new Map<CloudStackName, Preview>();

beforeAll(async () => {
  for (const name of ["azure-prod", "aws-prod"] as const) previews.set(name, await previewOf(name));
}, patienceMs);

function previewNamed(name: CloudStackName): Preview {
  const preview = previews.get(name);
  if (preview === undefined) throw new Error(`${name} was not previewed`);
  return preview;
}

/** Ids of policies that said something of a level. */
function saying(level: Diagnostic["level"], diagnostics: readonly Diagnostic[]): string[] {
  return [...new Set(diagnostics.filter((each) => each.level === level).map(({ policy }) => policy))].toSorted();
}

function changed(resources: readonly Resource[], type: string, change: Resource["inputs"]): Resource[] {
  expect(resources.map((each) => each.type)).toContain(type);
  return resources.map((each) => (each.type === type ? { ...each, inputs: { ...each.inputs, ...change } } : each));
}

describe.each(["azure-prod", "aws-prod"] as const)("the pack at a preview of %s", (name) => {
  let said: readonly Diagnostic[];
  let levels: ReadonlyMap<string, string>;

  beforeAll(async () => {
    const { config, resources } = previewNamed(name);
    await using pack = await startPack({ name, config });
    levels = await pack.policies();
    said = [...(await pack.judgeEach(resources)), ...(await pack.judgeStack(resources))];
  }, patienceMs);

  test("has every rule, with its level in production", () => {
    expect(levels).toEqual(levelsIn("prod"));
  });

  test("lets it through", () => {
    expect(said.filter(({ level }) => level === "mandatory")).toEqual([]);
  });

  test("what is not known yet keeps no rule from judging, but for documents that have ids in them", () => {
    const waiting = said.filter(({ message }) => message.includes("can't be known during preview"));
    const documents = waiting.map(({ message }) => / at \.(\S+) /.exec(message)?.[1]);
    expect(waiting.every(({ level }) => level === "advisory")).toBe(true);
    expect(new Set(documents)).toEqual(new Set(name.startsWith("aws") ? ["policy"] : []));
  });
});

describe("the pack", () => {
  test("has the levels of the stack's environment", async () => {
    await using pack = await startPack({ name: "aws-dev", config: await configOf("aws-dev") });
    expect(await pack.policies()).toEqual(levelsIn("dev"));
  });

  test("refuses what is closed in the stack, whatever else is unknown", async () => {
    const { config, resources } = previewNamed("azure-prod");
    const account = "azure-native:storage:StorageAccount";
    await using pack = await startPack({ name: "azure-prod", config });
    const open = changed(resources, account, { allowBlobPublicAccess: true, accountName: unknownValue });
    expect(saying("mandatory", await pack.judgeEach(open))).toEqual(["storage-not-public"]);
    const unknown = changed(resources, account, { allowBlobPublicAccess: unknownValue });
    expect(saying("mandatory", await pack.judgeEach(unknown))).toEqual(["storage-not-public"]);
    const uncapped = changed(resources, "azure-native:containerservice:AgentPool", { maxCount: 100 });
    const stack = await pack.judgeStack(uncapped);
    expect(saying("mandatory", stack)).toEqual(["planned-nodes"]);
    expect(stack.find(({ policy }) => policy === "planned-nodes")?.message).toMatch(/100 nodes at most; the plan has/);
  });

  test("judges the plan with the first resource, before there is another, and once", async () => {
    const stack = await stackOf("azure-prod");
    if (stack.cloud === "local") throw new Error("azure-prod is local");
    const poor = { ...stack, budget: { ...stack.budget, hourlyUsd: 1, maxGpus: 1 } };
    await using pack = await startPack({ name: "azure-prod", config: { "penstock:stack": JSON.stringify(poor) } });
    const first = await pack.judgeEach([root("azure-prod")]);
    expect(saying("mandatory", first)).toEqual(["hourly-budget", "max-gpus"]);
    expect(first.find(({ policy }) => policy === "max-gpus")?.message).toContain(
      "26 GPUs at the maximum; 1 are allowed",
    );
    const second = await pack.judgeEach([{ ...root("azure-prod"), urn: "another", type: "random:index:Another" }]);
    expect(second).toEqual([]);
  });

  test.each([
    ["a stack that nobody named", {}, /Missing stack name|stack/],
    ["a stack without configuration", { name: "somebody-elses" }, /Missing required configuration variable/],
    ["a stack that cannot be planned", { name: "broken", config: { "penstock:stack": "{}" } }, /must be one of/],
  ])("%s gets the strictest set, and is refused", async (_, stack, why) => {
    await using pack = await startPack(stack);
    expect(await pack.policies()).toEqual(levelsIn("prod"));
    const said = await pack.judgeEach([root("whatever")]);
    const planned = rules.filter((rule) => rule.judges === "plan" && rule.levels.prod === "mandatory");
    expect(saying("mandatory", said)).toEqual(planned.map(({ id }) => id).toSorted());
    expect(said[0]?.message).toMatch(/The plan of this stack is not known/);
    expect(said[0]?.message).toMatch(why);
  });
});

function root(stack: string): Resource {
  return {
    urn: `urn:pulumi:${stack}::penstock::pulumi:pulumi:Stack::penstock-${stack}`,
    type: "pulumi:pulumi:Stack",
    name: `penstock-${stack}`,
    custom: false,
    parent: "",
    provider: "",
    inputs: {},
    dependencies: [],
    protect: false,
    ignoreChanges: [],
  };
}
