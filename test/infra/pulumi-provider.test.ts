import { delimiter } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import packageJson from "../../package.json" with { type: "json" };
import { temporaryFolder } from "../support/folders.ts";
import { stackOf } from "../support/plans.ts";
import { awsMocks } from "../support/pulumi/aws.ts";
import { azureMocks } from "../support/pulumi/azure.ts";
import { runProgram, type Resource } from "../support/pulumi/engine.ts";
import { startProvider, type Made, type ProviderClient } from "../support/pulumi/provider-client.ts";
import { providerNames, writeProviders, type ProviderName } from "../support/pulumi/provider.ts";

const started = new AsyncDisposableStack();
const providers = new Map<ProviderName, ProviderClient>();

beforeAll(async () => {
  const folder = started.use(await temporaryFolder());
  await writeProviders(folder.path);
  const path = [folder.path, process.env["PATH"]].join(delimiter);
  await Promise.all(
    providerNames.map(async (name) => providers.set(name, started.use(await startProvider(name, path)))),
  );
});
afterAll(() => started.disposeAsync());

/** The provider of a type. */
function providerOf(type: string): ProviderClient {
  const name = providerNames.find((each) => type.startsWith(`${each}:`));
  const provider = name === undefined ? undefined : providers.get(name);
  if (provider === undefined) throw new Error(`no stand-in for ${type}`);
  return provider;
}

describe("a stand-in provider, as Pulumi's engine starts and asks it", () => {
  test.each(providerNames)("%s tells its version and takes secrets", async (name) => {
    const provider = providerOf(`${name}:`);
    expect(await provider.version()).toBe(packageJson.dependencies[`@pulumi/${name}`]);
    expect(await provider.configure()).toEqual({ acceptsSecrets: true });
  });

  test("it makes, tells changes from replacements, and deletes", async () => {
    const type = "azure-native:containerservice:AgentPool";
    const provider = providerOf(type);
    const urn = `urn:pulumi:s::p::${type}::pool`;
    const inputs = { agentPoolName: "gpus", resourceGroupName: "rg", maxCount: 2, tags: { b: "1", a: "2" } };
    expect(await provider.check(urn, inputs)).toEqual(inputs);
    const made = { urn, ...(await provider.create(urn, inputs)) };
    expect(made.id).toMatch(/\/resourceGroups\/rg\/providers\/Microsoft\.containerservice\/AgentPool\/gpus$/);
    expect(made.state).toMatchObject({ ...inputs, name: "gpus" });
    const { maxCount: _gone, ...fewer } = inputs;
    const grown = { ...inputs, maxCount: 3 };
    expect(await provider.diff(made, { ...inputs, tags: { a: "2", b: "1" } })).toEqual({
      changes: false,
      replaces: [],
    });
    expect(await provider.diff(made, grown)).toEqual({ changes: true, replaces: [] });
    expect(await provider.diff(made, fewer)).toEqual({ changes: true, replaces: [] });
    const renamed = await provider.diff(made, { ...inputs, agentPoolName: "other" });
    expect(renamed).toEqual({ changes: true, replaces: ["agentPoolName"] });
    const state = await provider.update(made, grown);
    expect(await provider.diff({ ...made, state }, grown)).toMatchObject({ changes: false });
    await provider.delete(made);
  });

  test.each([
    ["azure-native:authorization:getClientConfig", "subscriptionId"],
    ["aws:index/getCallerIdentity:getCallerIdentity", "accountId"],
  ])("it answers %s", async (token, property) => {
    expect(await providerOf(token).invoke(token, {})).toHaveProperty(property);
  });
});

describe.each([
  ["azure-dev", azureMocks, "azure-native:containerservice:AgentPool"],
  ["aws-dev", awsMocks, "aws:eks/nodeGroup:NodeGroup"],
] as const)("what the program of %s registers", (name, mocks, nodePool) => {
  const registered = async (change: (stack: Record<string, unknown>) => unknown = (stack) => stack) => {
    const stack = JSON.stringify(change({ ...(await stackOf(name)) }));
    const ran = await runProgram({
      stack: name,
      config: { "penstock:stack": stack },
      secretKeys: [],
      outputs: (made) => mocks.answer(made) ?? {},
      invoke: (token) => mocks.call(token),
    });
    expect(ran.messages).not.toContain("Error");
    return ran.resources.filter(({ custom, type }) => custom && !type.startsWith("pulumi:"));
  };

  test("can be made, is left alone when nothing changed, and its node pools stay when it is renamed and grows", async () => {
    const first = await registered();
    expect(first.filter(({ type }) => type === nodePool)).not.toEqual([]);
    const state = new Map<string, Made>();
    await Promise.all(
      first.map(async ({ urn, type, inputs }) => {
        const provider = providerOf(type);
        state.set(urn, { urn, ...(await provider.create(urn, await provider.check(urn, inputs))) });
      }),
    );
    expect(await updatesOf(first, state)).toEqual([]);

    const second = await registered(renamedAndGrown);
    expect(second.map(({ urn }) => urn).toSorted()).toEqual([...state.keys()].toSorted());
    const updates = await updatesOf(second, state);
    expect(updates.map(({ urn }) => urn)).toContainEqual(expect.stringContaining("ScaledObject"));
    expect(updates.filter(({ replaces }) => replaces.length > 0)).toEqual([]);
    await Promise.all(
      first.map(async ({ urn, type }) => providerOf(type).delete(state.get(urn) ?? { urn, id: "", state: {} })),
    );
  }, 120_000);
});

/** What an update would do; what it would leave alone is not there. */
async function updatesOf(resources: readonly Resource[], state: ReadonlyMap<string, Made>) {
  const all = await Promise.all(
    resources.map(async (resource) => {
      const { urn, type, inputs } = resource;
      const made = state.get(urn) ?? { urn, id: "", state: {} };
      return { urn, ...(await providerOf(type).diff(made, { ...inputs, ...ignoredOf(made, resource) })) };
    }),
  );
  return all.filter(({ changes }) => changes);
}

/** What the engine puts in place of inputs whose changes are to be ignored. */
function ignoredOf({ state }: Made, { ignoreChanges }: Resource): Record<string, unknown> {
  return Object.fromEntries(ignoreChanges.filter((key) => key in state).map((key) => [key, state[key]]));
}

/** Another name for people, and twice the replicas for the first fleet. */
function renamedAndGrown(stack: Record<string, unknown>): unknown {
  const { fleets, pools } = stack as {
    // As the schema has them.
    fleets: { replicas: { min: number; max: number } }[];
    pools: { maxNodes: number }[];
  };
  return {
    ...stack,
    displayName: "Another name",
    fleets: fleets.map((fleet, at) =>
      at === 0 ? { ...fleet, replicas: { ...fleet.replicas, max: 2 * fleet.replicas.max } } : fleet,
    ),
    pools: pools.map((pool) => ({ ...pool, maxNodes: 2 * pool.maxNodes })),
  };
}
