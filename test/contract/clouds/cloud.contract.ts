import * as pulumi from "@pulumi/pulumi";
import { beforeAll, describe, expect, test } from "vitest";
import { serviceAccountNames, type CloudOutputs, type DeployCloud } from "../../../infra/cloud.ts";
import type { CloudPlan, PlannedPool } from "../../../infra/plan/plan.ts";
import { underMocks, valueOf, type MockOptions, type Registered } from "../../support/pulumi/mocks.ts";
import { acceptsTags } from "../../support/pulumi/tagged.ts";

/** A group of GPU nodes that the cloud room made. */
export interface NodeGroup {
  /** The plan's pool. */
  readonly pool: string;
  readonly minNodes: number;
  readonly maxNodes: number;
  readonly initialNodes: number;
  /** As `key=value:Effect`. */
  readonly taints: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly zones: readonly string[];
  readonly spot: boolean;
  /** How long an upgrade waits for pods to go; null where the cloud does not say. */
  readonly drainSeconds: number | null;
  /** Input that the autoscaler owns. */
  readonly countInput: string;
  readonly resource: Registered;
}

/** Where models are kept. */
export interface ModelStore {
  /** Reasons why somebody outside could get in: public access, keys, old TLS. Right: none. */
  readonly openings: readonly string[];
  readonly versioned: boolean;
  readonly oldVersionsDays: number | null;
}

/** What somebody may do with the store of models. */
export interface StoreGrant {
  /** Name of the service account; people and others have names of their own. */
  readonly who: string;
  readonly writes: boolean;
  /** It holds for the container or bucket of models, and nothing wider. */
  readonly narrow: boolean;
}

/** One cloud as the suite sees it. */
export interface CloudUnderTest {
  readonly name: string;
  readonly deploy: DeployCloud;
  readonly planOf: (environment: "dev" | "prod") => CloudPlan | Promise<CloudPlan>;
  readonly mocks: Pick<MockOptions<unknown>, "answer" | "call">;
  /** Pools of the plan that this room makes (others are Karpenter's). */
  readonly makes: (pool: PlannedPool) => boolean;
  readonly nodeGroups: (resources: readonly Registered[]) => readonly NodeGroup[];
  readonly store: (resources: readonly Registered[]) => ModelStore;
  readonly grants: (resources: readonly Registered[]) => readonly StoreGrant[];
  /** Resources that hold data. */
  readonly stateful: (resources: readonly Registered[]) => readonly Registered[];
  /** Names of resources that the internet can reach although the plan says no. */
  readonly exposed: (resources: readonly Registered[], plan: CloudPlan) => readonly string[];
  readonly budget: (resources: readonly Registered[]) => {
    readonly monthlyUsd: number;
    readonly alerts: readonly string[];
  };
}

/** A URL with a password that is not guessed, over TLS. */
const tlsUrl = /^(rediss:\/\/[^@/]*:[^@/]{10,}@[^/@]+:\d+|postgres:\/\/[^:]+:[^@]{20,}@.*sslmode=verify-full)/;

interface Deployed {
  readonly plan: CloudPlan;
  readonly resources: readonly Registered[];
  readonly outputs: CloudOutputs;
  readonly cpuMs: number;
}

/** Budget for a deployment under mocks. In time of the processor: the machine may be busy with other things. */
const deploymentCpuMs = 4000;

/** What every cloud room must do, whatever its resources are called. */
export function cloudContract(cloud: CloudUnderTest): void {
  const deploy = async (plan: CloudPlan): Promise<Deployed> => {
    const before = process.cpuUsage();
    const { resources, result } = await underMocks({ program: () => cloud.deploy(plan), ...cloud.mocks });
    const { user, system } = process.cpuUsage(before);
    return { plan, resources, outputs: result, cpuMs: (user + system) / 1000 };
  };

  for (const environment of ["dev", "prod"] as const) {
    describe(`${cloud.name}, ${environment}`, () => {
      let deployed: Deployed;
      beforeAll(async () => {
        deployed = await deploy(await cloud.planOf(environment));
      });

      identityRules(cloud, () => deployed);
      exposureRules(cloud, () => deployed);
      nodeGroupRules(cloud, () => deployed);
      shapeRules(cloud, () => deployed, deploy);
    });
  }
}

function identityRules(cloud: CloudUnderTest, deployed: () => Deployed): void {
  test("every service account is told of; only those that use the cloud have an identity", () => {
    const { serviceAccounts } = deployed().outputs;
    expect(Object.keys(serviceAccounts).toSorted()).toEqual([...serviceAccountNames].toSorted());
  });

  test("agents read models and cannot write; one other identity writes; nobody has more than the models", () => {
    const grants = cloud.grants(deployed().resources);
    expect(grants.filter(({ who }) => who === "agent")).toEqual([{ who: "agent", writes: false, narrow: true }]);
    expect(grants.filter(({ who }) => who === "model-push")).toEqual([
      { who: "model-push", writes: true, narrow: true },
    ]);
    expect(grants.filter(({ narrow }) => !narrow)).toEqual([]);
  });

  test("what opens doors is a secret", async () => {
    const { kubeconfig, redisUrl, postgresUrl } = deployed().outputs;
    const doors = [kubeconfig, redisUrl, postgresUrl].filter((door) => door !== null);
    expect(await Promise.all(doors.map(pulumi.isSecret))).toEqual(doors.map(() => true));
    expect(await valueOf(kubeconfig)).toContain("apiVersion");
  });

  test("managed stores are reached over TLS, with a password; in-cluster ones have no URL", async () => {
    const { plan, outputs } = deployed();
    const kindOf = async (url: pulumi.Output<string> | null): Promise<string> =>
      url === null ? "in-cluster" : tlsUrl.test(await valueOf(url)) ? "managed" : "without TLS or password";
    expect({ redis: await kindOf(outputs.redisUrl), postgres: await kindOf(outputs.postgresUrl) }).toEqual({
      redis: plan.redis.mode,
      postgres: plan.postgres.mode,
    });
  });

  test("no password is where it can be read", async () => {
    const { outputs, resources } = deployed();
    if (outputs.postgresUrl === null) return;
    const { password } = new URL(await valueOf(outputs.postgresUrl));
    const readable = resources.filter(({ inputs, secretInputs }) =>
      Object.entries(inputs).some(
        ([key, value]) => !secretInputs.includes(key) && JSON.stringify(value).includes(password),
      ),
    );
    expect(readable.map(({ name }) => name)).toEqual([]);
  });
}

function exposureRules(cloud: CloudUnderTest, deployed: () => Deployed): void {
  test("models cannot be read from outside, and old versions are kept for a while", () => {
    const { plan, resources } = deployed();
    expect(cloud.store(resources)).toEqual({
      openings: [],
      versioned: true,
      oldVersionsDays: plan.cache.keepOldVersionsDays,
    });
  });

  test("nothing is public that the plan does not want to be", () => {
    const { plan, resources } = deployed();
    expect(cloud.exposed(resources, plan)).toEqual([]);
  });

  test("everything that can carry tags carries all of the plan's", () => {
    const { plan, resources } = deployed();
    const able = resources.filter(acceptsTags);
    expect(able.length).toBeGreaterThan(5);
    const untagged = able.filter(({ inputs }) => {
      const tags = new Map(Object.entries(inputs["tags"] ?? {}));
      return Object.entries(plan.tags).some(([key, value]) => tags.get(key) !== value);
    });
    expect(untagged.map(({ type, name }) => `${type} ${name}`)).toEqual([]);
  });

  test("what holds data is protected in production, and there alone", () => {
    const { plan, resources } = deployed();
    const stateful = cloud.stateful(resources);
    expect(stateful.length).toBeGreaterThan(0);
    for (const { name, protect } of stateful)
      expect({ name, protect }).toEqual({ name, protect: plan.environment === "prod" });
  });

  test("somebody is told at 50, 80 and 100 % of the budget, and when 100 % is foreseen", () => {
    const { plan, resources } = deployed();
    const { monthlyUsd, alerts } = cloud.budget(resources);
    expect(monthlyUsd).toBe(plan.budget.monthlyUsd);
    expect([...alerts].toSorted()).toEqual(["actual 100", "actual 50", "actual 80", "forecast 100"]);
  });
}

function nodeGroupRules(cloud: CloudUnderTest, deployed: () => Deployed): void {
  const eachGroup = (check: (group: NodeGroup, pool: PlannedPool, plan: CloudPlan) => void): void => {
    const { plan, resources } = deployed();
    const groups = cloud.nodeGroups(resources);
    for (const pool of plan.pools.filter(cloud.makes)) {
      const mine = groups.filter((group) => group.pool === pool.name);
      expect(mine.length, pool.name).toBeGreaterThan(0);
      for (const group of mine) check(group, pool, plan);
    }
  };

  test("each planned pool has nodes with its taints, labels and zones", () => {
    eachGroup((group, pool) => {
      for (const { key, value, effect } of pool.taints) expect(group.taints).toContain(`${key}=${value}:${effect}`);
      expect(group.taints.some((taint) => taint.startsWith("nvidia.com/gpu="))).toBe(true);
      expect(group.labels).toMatchObject(pool.labels);
      expect(pool.zones).toEqual(expect.arrayContaining([...group.zones]));
      expect(group.spot).toBe(pool.capacity === "spot");
    });
  });

  test("pools scale to what the plan says, down to nothing where it says so, and never above", () => {
    eachGroup((group, pool) => {
      expect({ min: group.minNodes, max: group.maxNodes }).toEqual({ min: pool.minNodes, max: pool.maxNodes });
      expect(group.initialNodes).toBe(pool.minNodes);
    });
  });

  test("the number of nodes is the autoscaler's", () => {
    eachGroup(({ resource, countInput }) => {
      expect(resource.ignoreChanges).toContain(countInput);
    });
  });

  test("upgrades wait for the longest stream", () => {
    const { plan, resources } = deployed();
    const impatient = cloud.nodeGroups(resources).filter(({ pool, drainSeconds }) => {
      const group = plan.pools.find(({ name }) => name === pool)?.group;
      const drains = plan.fleets.filter((fleet) => fleet.pool === group).map((fleet) => fleet.drainSeconds);
      return drainSeconds !== null && drainSeconds < Math.max(0, ...drains);
    });
    expect(impatient.map(({ pool }) => pool)).toEqual([]);
  });

  test("a pool that was renamed is the same pool", async () => {
    const { plan } = deployed();
    const first = plan.pools.find(cloud.makes);
    if (first === undefined) return;
    const renamed = {
      ...plan,
      pools: plan.pools.map((pool) => (pool === first ? { ...pool, formerNames: ["old"] } : pool)),
    };
    const { resources } = await underMocks({ program: () => cloud.deploy(renamed), ...cloud.mocks });
    const group = cloud.nodeGroups(resources).find(({ pool }) => pool === first.name);
    expect(group?.resource.aliases).toContain(group?.resource.name.replace(first.name, "old"));
  });
}

function shapeRules(
  cloud: CloudUnderTest,
  deployed: () => Deployed,
  deploy: (plan: CloudPlan) => Promise<Deployed>,
): void {
  const identityOf = ({ type, name: called, parent }: Registered): string => `${parent} ${type} ${called}`;

  test("every resource belongs to a concern, and no two have one name", () => {
    const { resources } = deployed();
    const orphans = resources.filter(({ custom, parent }) => custom && !parent.includes(`penstock:${cloud.name}:`));
    expect(orphans.map((resource) => resource.name)).toEqual([]);
    const identities = resources.map(identityOf);
    expect(new Set(identities).size).toBe(identities.length);
  });

  test("the same plan makes the same deployment, and another display name changes tags at most", async () => {
    const { plan, resources } = deployed();
    const told = ({ inputs, ...rest }: Registered): unknown => ({ ...rest, inputs: { ...inputs, tags: null } });
    const again = await deploy({ ...plan, displayName: "Quite another name" });
    const sorted = (all: readonly Registered[]): unknown[] =>
      all.toSorted((a, b) => identityOf(a).localeCompare(identityOf(b))).map(told);
    expect(sorted(again.resources)).toEqual(sorted(resources));
  });

  test("a preview, where nothing is known yet, makes the same resources", async () => {
    const { plan, resources } = deployed();
    const preview = await underMocks({ program: () => cloud.deploy(plan), preview: true });
    const names = (all: readonly Registered[]): string[] => all.map(identityOf).toSorted();
    expect(names(preview.resources)).toEqual(names(resources));
  });

  test(`a deployment under mocks takes less than ${deploymentCpuMs / 1000} s`, () => {
    expect(deployed().cpuMs).toBeLessThan(deploymentCpuMs);
  });
}
