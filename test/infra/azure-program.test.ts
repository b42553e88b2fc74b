import { beforeAll, describe, expect, test } from "vitest";
import program from "../../infra/index.ts";
import { planOf, stackOf } from "../support/plans.ts";
import { azureMocks } from "../support/pulumi/azure.ts";
import { underMocks, type Registered } from "../support/pulumi/mocks.ts";

/** For all of production. In time of the processor: the machine may be busy with other things. */
const cpuBudgetMs = 4000;

describe("the whole program, azure-prod", () => {
  let resources: readonly Registered[];
  let cpuMs: number;

  beforeAll(async () => {
    const config = {
      "penstock:stack": JSON.stringify(await stackOf("azure-prod")),
      "penstock:tlsCertificate": "certificate",
      "penstock:tlsKey": "key",
    };
    const before = process.cpuUsage();
    ({ resources } = await underMocks({ program, ...azureMocks, config, stack: "azure-prod" }));
    const { user, system } = process.cpuUsage(before);
    cpuMs = (user + system) / 1000;
  });

  test(`takes less than ${cpuBudgetMs / 1000} s under mocks`, () => {
    expect(resources.length).toBeGreaterThan(100);
    expect(cpuMs).toBeLessThan(cpuBudgetMs);
  });

  test("Kubernetes is reached with the cluster's kubeconfig, which nobody can read", () => {
    const [provider, ...more] = resources.filter(({ type }) => type === "pulumi:providers:kubernetes");
    expect(more).toEqual([]);
    expect(provider?.secretInputs).toContain("kubeconfig");
    expect(String(provider?.inputs["kubeconfig"])).toContain("azurecli");
  });

  test("the autoscaler is told of every pool, in the order of the stack", async () => {
    const name = "cluster-autoscaler-priority-expander";
    const map = resources.find(({ inputs }) => JSON.stringify(inputs["metadata"] ?? "").includes(name));
    const { pools } = await planOf("azure-prod");
    const lines = JSON.stringify(map?.inputs["data"]);
    const agentPools = resources.filter(({ type }) => type === "azure-native:containerservice:AgentPool");
    expect(agentPools).toHaveLength(pools.length);
    for (const { inputs } of agentPools) expect(lines).toContain(String(inputs["agentPoolName"]));
  });
});
