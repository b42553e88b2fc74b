import { format } from "prettier";
import { describe, expect, test } from "vitest";
import { planOf, stackNames } from "../support/plans.ts";

describe.each(stackNames)("%s", (name) => {
  test("is planned as was agreed on (`vitest -u` takes a change)", async () => {
    const plan = JSON.stringify(await planOf(name));
    // Files of a local stack are where the repository is.
    const anywhere = plan.replaceAll(new URL("../..", import.meta.url).href, "file:///penstock/");
    const text = await format(anywhere, { parser: "json", printWidth: 120 });
    await expect(text).toMatchFileSnapshot(`../golden/plans/${name}.json`);
  });

  test("is plain JSON, with no secret", async () => {
    const plan = await planOf(name);
    const text = JSON.stringify(plan);
    // Neither NaN nor undefined survives the way there and back.
    expect(JSON.parse(text)).toStrictEqual(plan);
    expect(text).not.toMatch(/apiKey|password|secretKey|penstock-local-key/i);
  });
});

test("prod serves what it is for", async () => {
  for (const name of ["azure-prod", "aws-prod"] as const) {
    const { fleets, pools } = await planOf(name);
    const fleet = (wanted: string): (typeof fleets)[number] | undefined => fleets.find((each) => each.name === wanted);
    expect(fleet("large")).toMatchObject({ gpusPerReplica: 4, nodesPerReplica: 1, engine: { tensorParallel: 4 } });
    expect(pools.find(({ group }) => group === fleet("large")?.pool)?.gpu.nvlink).toBe(true);
    expect(fleet("small")?.models.length).toBeGreaterThan(2);
    expect(fleet("small")).toMatchObject({ gpusPerReplica: 1, engine: { lora: { maxLoras: 4 } } });
    expect(fleet("embeddings")).toMatchObject({ engine: { task: "embed" }, pool: "auto-embeddings" });
    expect(fleet("vision")?.engine.kind).toBe("trtllm");
    expect(fleet("triton")?.engine.kind).toBe("triton");
  }
});

test("dev goes to zero, on spot alone", async () => {
  for (const name of ["azure-dev", "aws-dev"] as const) {
    const { fleets, pools } = await planOf(name);
    expect(fleets.map(({ replicas }) => replicas.min)).toEqual(fleets.map(() => 0));
    for (const pool of pools) expect(pool).toMatchObject({ capacity: "spot", minNodes: 0, groupNodes: { min: 0 } });
  }
});
