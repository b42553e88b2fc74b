import { describe, expect, test } from "vitest";
import type { PlannedFleet } from "../../infra/plan/plan.ts";
import { azureStack, awsStack, fleet, model, planned, refusalOf, type WrittenStack } from "../support/stacks.ts";

/** The stack with one fleet of one model on one pool. */
function oneFleet(change: {
  readonly stack?: WrittenStack;
  readonly fleet?: WrittenStack;
  readonly model?: WrittenStack;
  readonly pool?: WrittenStack;
}): WrittenStack {
  const stack = change.stack ?? awsStack;
  const [pool] = stack["pools"] as WrittenStack[]; // both base stacks have one
  return {
    ...stack,
    models: [change.model ?? model("llama", "llama-3.1-8b")],
    pools: [{ ...pool, ...change.pool }],
    fleets: [{ ...fleet, ...change.fleet }],
  };
}

function fleetOf(stack: WrittenStack): PlannedFleet {
  const [first] = planned(stack).fleets;
  if (first === undefined) throw new Error("no fleet");
  return first;
}

const on = (size: string, change: WrittenStack = {}): { pool: WrittenStack } => ({
  pool: { sizes: [size], ...change },
});
const large = model("llama", "llama-3.1-70b");

describe("sizes of a replica", () => {
  test.each([
    ["8B on one L40S", "g6e.2xlarge", "llama-3.1-8b", { concurrency: 16 }, [1, 1, 1]],
    ["8B on two L4: too little on one", "g6.12xlarge", "llama-3.1-8b", { concurrency: 8 }, [2, 1, 1]],
    ["70B over NVLink", "p5.48xlarge", "llama-3.1-70b", { concurrency: 16 }, [4, 1, 1]],
    ["70B without NVLink: two, and stages", "g6e.12xlarge", "llama-3.1-70b-fp8", { concurrency: 4 }, [2, 2, 1]],
    ["405B FP8 on half a node", "p5en.48xlarge", "llama-3.1-405b-fp8", { concurrency: 16 }, [4, 1, 1]],
    ["405B FP8 with more requests", "p5en.48xlarge", "llama-3.1-405b-fp8", { concurrency: 64 }, [8, 1, 1]],
    ["405B over two nodes", "p5.48xlarge", "llama-3.1-405b", { concurrency: 4 }, [8, 2, 2]],
    ["many requests over PCIe: two, and stages", "g6.48xlarge", "qwen2.5-7b", { concurrency: 64 }, [2, 2, 1]],
  ] as const)("%s", (...[, size, shape, options, [tensor, pipeline, nodes]]) => {
    const planFleet = fleetOf(oneFleet({ ...on(size), model: model("llama", shape), fleet: options }));
    expect(planFleet.engine).toMatchObject({ tensorParallel: tensor, pipelineParallel: pipeline, nodes });
    expect(planFleet.gpusPerReplica).toBe(tensor * pipeline);
    expect(planFleet.nodesPerReplica).toBe(nodes);
    expect(planFleet.why.join("\n")).toContain(`${tensor * pipeline} GPU`);
  });

  test("a pool of several sizes is planned for the tightest of them", () => {
    const pool = { sizes: ["Standard_NC40ads_H100_v5", "Standard_NC24ads_A100_v4"] };
    const planFleet = fleetOf(oneFleet({ stack: azureStack, pool }));
    expect(planFleet.memory.usableGiB).toBe(72);
    expect(planFleet.pod.cpuMillis).toBeLessThan(24_000);
  });

  test("models that share a GPU get a part of it each", () => {
    const stack = {
      ...oneFleet({ ...on("p5.4xlarge"), fleet: { models: ["llama", "qwen"], residentModels: 2, concurrency: 4 } }),
      models: [model("llama", "llama-3.1-8b"), model("qwen", "qwen3-8b")],
    };
    const planFleet = fleetOf(stack);
    expect(planFleet.engine).toMatchObject({ gpuMemoryUtilization: 0.48 });
    expect(planFleet.why.join("\n")).toContain("2 models share each replica's GPUs");
    expect(refusalOf({ ...stack, pools: [{ name: "gpus", sizes: ["g6.2xlarge"], maxNodes: 4 }] })).toContain(
      "GiB usable",
    );
  });

  test("llama.cpp splits layers over GPUs and keeps its own context", () => {
    const planFleet = fleetOf(
      oneFleet({
        ...on("g6.48xlarge"),
        model: model("llama", { ...shape70b, weights: "int4" }, { format: "gguf", source: "hf://x/y/q4.gguf" }),
        fleet: { engine: { kind: "llamacpp", contextSize: 8192, parallelSequences: 2 }, contextTokens: undefined },
      }),
    );
    expect(planFleet.engine).toMatchObject({ kind: "llamacpp", gpuCount: 4, contextSize: 8192 });
    expect(planFleet.concurrency).toBe(2);
  });

  const shape70b = {
    parametersB: 70.55,
    layers: 80,
    attentionHeads: 64,
    kvHeads: 8,
    headSize: 128,
    hiddenSize: 8192,
    vocabulary: 128256,
    contextTokens: 131072,
  };

  test("a shape may be spelled out in the stack", () => {
    const planFleet = fleetOf(oneFleet({ ...on("p5.48xlarge"), model: model("llama", shape70b) }));
    expect(planFleet.gpusPerReplica).toBe(4);
  });

  test("the engine is told of its context, and pods get their GPUs' share of the node", () => {
    const planFleet = fleetOf(oneFleet({ ...on("p5.48xlarge"), model: large }));
    expect(planFleet.engine).toMatchObject({ maxModelLen: 8192 });
    expect(planFleet.replicasPerNode).toBe(2);
    expect(planFleet.pod.cpuMillis * 2).toBeLessThan(191_450);
    expect(planFleet.pod.memoryGiB * 2).toBeLessThan(1893);
    expect(planFleet.pod.sharedMemoryGiB).toBe(16);
  });
});

describe("what cannot work is refused with its path, the arithmetic and a remedy", () => {
  test.each([
    [
      "a model that does not fit",
      oneFleet({ model: large }),
      /fleets\[0\]: `llama` on pool `gpus`: 1 x NVIDIA L40S: on each GPU 131\.4 GiB of weights .* of 40\.2 GiB usable; lower concurrency \(16\) or contextTokens \(8192\), or use a pool of \S+, which fits/,
    ],
    [
      "a model that fits nowhere",
      oneFleet({
        model: model("llama", "llama-3.1-405b"),
        fleet: { pool: undefined, gpu: "auto", concurrency: 100000 },
      }),
      /fleets\[0\]\.gpu: no size in us-east-1 fits: .* GiB usable/,
    ],
    [
      "tensor parallel over PCIe",
      oneFleet({ ...on("g6e.12xlarge"), fleet: { engine: { kind: "vllm", tensorParallel: 4 } } }),
      "fleets[0].engine: `llama` on pool `gpus`: tensorParallel 4 needs NVLink between the GPUs, and those of g6e.12xlarge have none; set it to 2 with pipelineParallel, or use a pool with NVLink",
    ],
    [
      "heads that do not divide",
      oneFleet({ ...on("p5.48xlarge"), fleet: { engine: { kind: "vllm", tensorParallel: 3 } } }),
      "tensorParallel 3 does not divide 32 attention heads; 1, 2, 4, 8, 16, 32 do",
    ],
    [
      "tensor parallel over nodes",
      oneFleet({ ...on("p5.48xlarge"), fleet: { engine: { kind: "vllm", tensorParallel: 16, nodes: 2 } } }),
      "fleets[0].engine: `llama` on pool `gpus`: 16 GPUs over 2 nodes do not fit on p5.48xlarge with 8 each",
    ],
    [
      "more stages than layers",
      oneFleet({ ...on("p5.48xlarge", { maxNodes: 20 }), fleet: { engine: { kind: "vllm", pipelineParallel: 40 } } }),
      "pipelineParallel 40 is more than the model's 32 layers",
    ],
    [
      "bf16 on a T4",
      oneFleet(on("g4dn.xlarge")),
      "bf16 weights need compute capability 8.0, and NVIDIA T4 of g4dn.xlarge has 7.5; set the engine's dtype to float16, or use a newer GPU",
    ],
    [
      "FP8 on an A100",
      oneFleet({ stack: azureStack, model: model("llama", "llama-3.1-8b-fp8") }),
      "fp8 weights need compute capability 8.9, and NVIDIA A100 80GB PCIe of Standard_NC24ads_A100_v4 has 8.0",
    ],
    [
      "FP4 before Blackwell",
      oneFleet({ ...on("p5.4xlarge"), model: model("llama", { ...require8b(), weights: "fp4" }) }),
      "fp4 weights need compute capability 10.0",
    ],
    [
      "a node without NVMe",
      oneFleet({ stack: azureStack, ...on("Standard_NV36ads_A10_v5"), fleet: { concurrency: 2 } }),
      "Standard_NV36ads_A10_v5 has no local NVMe for the model cache; use a size that has",
    ],
    [
      "files larger than the disk",
      oneFleet({
        ...on("g5.xlarge"),
        model: model("llama", { ...require8b(), weightsGiB: 300 }),
        fleet: { engine: { kind: "vllm", quantization: "awq" }, concurrency: 1 },
      }),
      "the files of `llama` are 300.0 GiB, and a replica's share of the NVMe of g5.xlarge is",
    ],
    [
      "weights that sleep in too little RAM",
      oneFleet({ ...on("g6.xlarge"), fleet: { concurrency: 2, idle: { sleep_after_seconds: 60 } } }),
      /a replica needs 21\.0 GiB of RAM, and its share of g6\.xlarge is 12\.0 GiB; set the engine's sleepLevel to 2/,
    ],
    [
      "a context that the model does not have",
      oneFleet({ fleet: { contextTokens: 200000 } }),
      "fleets[0].contextTokens: 200000 is more than the 131072 tokens of `llama`; lower it",
    ],
    [
      "an embedding model that is asked to chat",
      oneFleet({ model: model("llama", "bge-m3") }),
      "fleets[0].engine.task: `llama` is a model to embed; set task to embed, or serve it elsewhere",
    ],
    [
      "an unknown shape",
      oneFleet({ model: model("llama", "lama") }),
      "models[0].shape: no shape named `lama`; there are llama-3.1-8b,",
    ],
    [
      "a source that nothing is known of",
      oneFleet({ model: { ...model("llama", undefined), source: "hf://who/knows" } }),
      "models[0].shape: nothing is known of the shape of hf://who/knows; there are",
    ],
    [
      "an unknown size",
      oneFleet(on("p5.96xlarge")),
      "pools[0].sizes[0]: no size named `p5.96xlarge` on aws; in us-east-1 there are g4dn.12xlarge",
    ],
    [
      "a size of the other cloud",
      oneFleet({ stack: azureStack, ...on("p5.48xlarge") }),
      "pools[0].sizes[0]: no size named `p5.48xlarge` on azure",
    ],
    [
      "a size that the region does not have",
      oneFleet({ stack: { ...azureStack, region: "eastus" }, ...on("Standard_ND96isr_H200_v5") }),
      /pools\[0\]\.sizes\[0\]: Standard_ND96isr_H200_v5 is not sold in eastus; it is in .*eastus2.* In eastus there are /,
    ],
    [
      "a size that Penstock cannot use",
      oneFleet({ stack: azureStack, ...on("Standard_ND96isr_MI300X_v5") }),
      "pools[0].sizes[0]: Standard_ND96isr_MI300X_v5 cannot be used: an AMD GPU",
    ],
    [
      "an unknown region",
      { ...azureStack, region: "atlantis" },
      "region: no region named `atlantis` has GPU sizes; there are",
    ],
    ["a region of another cloud", { ...awsStack, region: "eastus2" }, "region: `eastus2` is no region of AWS"],
    [
      "more replicas than nodes",
      oneFleet({ fleet: { replicas: { min: 1, max: 9 } } }),
      "pools[0].maxNodes: 4, and its fleets may need 9 nodes with 0 spare; raise it to 9, or lower their replicas.max",
    ],
    [
      "a first request that nobody can hold",
      oneFleet({
        stack: { ...awsStack, gateway: { hostname: "x.example.com", hold: { maxSeconds: 60 } } },
        fleet: { replicas: { min: 0, max: 1 } },
      }),
      /fleets\[0\]\.replicas\.min: from 0 a start takes about \d+ s, and gateway\.hold\.maxSeconds is 60/,
    ],
    [
      "the embedded engine",
      oneFleet({ fleet: { engine: { kind: "embedded" } }, model: model("llama", "llama-3.1-8b", { format: "gguf" }) }),
      "fleets[0].engine.kind: the embedded engine is for one machine; use llamacpp",
    ],
    [
      "more Redis than there is",
      { ...awsStack, redis: { mode: "managed", memoryGiB: 500 } },
      "redis.memoryGiB: 500 is more than the largest, cache.r7g.2xlarge with 52.82; lower it",
    ],
    [
      "an unknown system size",
      { ...awsStack, cluster: { systemSize: "t3.nano" } },
      "cluster.systemSize: no size named `t3.nano` in the catalogue; there are m7i.xlarge",
    ],
  ])("%s", (_, stack, problem) => {
    expect(refusalOf(stack)).toMatch(problem);
  });

  function require8b(): WrittenStack {
    return {
      parametersB: 8.03,
      layers: 32,
      attentionHeads: 32,
      kvHeads: 8,
      headSize: 128,
      hiddenSize: 4096,
      vocabulary: 128256,
      contextTokens: 131072,
    };
  }

  test("all at once", () => {
    const message = refusalOf({
      ...oneFleet({ model: large }),
      pools: [
        { name: "gpus", sizes: ["g6e.2xlarge"], maxNodes: 1 },
        { name: "other", sizes: ["nope"], maxNodes: 1 },
      ],
      redis: { mode: "managed", memoryGiB: 500 },
    });
    expect(message).toMatch(/^The stack test cannot be planned, 3 problems:/);
    for (const part of ["fleets[0]: ", "pools[1].sizes[0]: ", "redis.memoryGiB: "]) expect(message).toContain(part);
  });
});

describe("pools", () => {
  test("each way to buy and each size is a pool of its own, in the order to try", () => {
    const pool = {
      sizes: ["Standard_ND96isr_H100_v5", "Standard_ND96amsr_A100_v4"],
      capacity: ["reserved", "spot", "on-demand"],
      reservation: { id: "/subscriptions/x/crg", nodes: 1, discountPercent: 40 },
      minNodes: 2,
    };
    const { pools } = planned(oneFleet({ stack: azureStack, pool, fleet: { spot: true } }));
    expect(pools.map(({ name, minNodes, maxNodes }) => [name, minNodes, maxNodes])).toEqual([
      ["gpus-res-nd96isr-h100-v5", 1, 1],
      ["gpus-spot-nd96isr-h100-v5", 0, 4],
      ["gpus-spot-nd96amsr-a100-v4", 0, 4],
      ["gpus-od-nd96isr-h100-v5", 1, 4],
      ["gpus-od-nd96amsr-a100-v4", 0, 4],
    ]);
    expect(pools.map(({ order }) => order)).toEqual([0, 1, 2, 3, 4]);
    expect(pools[0]).toMatchObject({ reservationId: "/subscriptions/x/crg", price: { usdPerHour: 58.992 } });
    expect(pools.every(({ groupNodes }) => groupNodes.max === 4 && groupNodes.min === 2)).toBe(true);
  });

  test("only spot nodes carry the cloud's spot taint, and all carry the GPU's", () => {
    for (const [stack, key] of [
      [azureStack, "kubernetes.azure.com/scalesetpriority"],
      [awsStack, "penstock.dev/spot"],
    ] as const) {
      const { pools } = planned(oneFleet({ stack, pool: { capacity: ["spot", "on-demand"] }, fleet: { spot: true } }));
      expect(pools.map(({ taints }) => taints.map((taint) => taint.key))).toEqual([
        ["nvidia.com/gpu", key],
        ["nvidia.com/gpu"],
      ]);
    }
  });

  test("names stay short and unique, and end in a hash where they must", () => {
    const name = "a-pool-with-20-chars";
    const pool = { name, sizes: ["Standard_ND96amsr_A100_v4", "Standard_ND96isr_H100_v5"], capacity: ["spot"] };
    const { pools } = planned(oneFleet({ stack: azureStack, pool, fleet: { pool: name, spot: true } }));
    expect(pools.map((each) => each.name)).toEqual([
      expect.stringMatching(/^a-pool-with-20-chars-spot-nd96ams-[0-9a-f]{6}$/),
      expect.stringMatching(/^a-pool-with-20-chars-spot-nd96isr-[0-9a-f]{6}$/),
    ]);
    for (const each of pools) expect(each.name.length).toBeLessThanOrEqual(40);
  });

  test("changing a display name changes no pool", () => {
    const named = planned({ ...azureStack, displayName: "One" });
    const renamed = planned({ ...azureStack, displayName: "Another" });
    expect(renamed).toEqual({ ...named, displayName: "Another" });
  });

  test("a renamed pool keeps its former names, so that nothing is replaced", () => {
    const before = planned(oneFleet({ pool: { capacity: ["spot", "on-demand"] }, fleet: { spot: true } }));
    const after = planned(
      oneFleet({
        pool: { name: "cards", formerNames: ["gpus"], capacity: ["spot", "on-demand"] },
        fleet: { pool: "cards", spot: true },
      }),
    );
    expect(after.pools.map(({ formerNames }) => formerNames)).toEqual(before.pools.map(({ name }) => [name]));
    expect(after.pools.map(({ group }) => group)).toEqual(["cards", "cards"]);
  });

  test("on AWS Karpenter makes nodes; blocks and replicas over EFA nodes are node groups", () => {
    expect(planned(awsStack).pools[0]?.provisioner).toBe("karpenter");
    const spread = planned(
      oneFleet({ ...on("p5.48xlarge"), model: model("llama", "llama-3.1-405b"), fleet: { concurrency: 4 } }),
    );
    expect(spread.pools[0]).toMatchObject({ provisioner: "node-group", placementGroup: true, zones: ["us-east-1a"] });
    const names = spread.addOns.map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining(["leader-worker-set", "aws-efa-k8s-device-plugin", "cluster-autoscaler"]),
    );
    const block = planned(
      oneFleet({
        ...on("p5e.48xlarge", { capacity: ["block"], zones: ["us-east-1b"], reservation: { id: "cr-1", nodes: 2 } }),
      }),
    );
    expect(block.pools[0]).toMatchObject({ provisioner: "node-group", capacity: "block", maxNodes: 2 });
    expect(planned(azureStack).pools[0]).toMatchObject({ provisioner: "agent-pool", placementGroup: false });
  });

  test("a floor that fleets do not hold is held by placeholder pods where Karpenter makes the nodes", () => {
    const { pools } = planned(oneFleet({ pool: { minNodes: 3, maxNodes: 6 } }));
    expect(pools[0]).toMatchObject({ minNodes: 0, warmSpares: 2, groupNodes: { min: 3, max: 6 } });
    const azure = planned(oneFleet({ stack: azureStack, pool: { minNodes: 3, maxNodes: 6 } }));
    expect(azure.pools[0]).toMatchObject({ minNodes: 3, warmSpares: 0 });
  });

  test("the system disk is ephemeral only where it leaves the NVMe to the cache", () => {
    const disk = (size: string): string | undefined =>
      planned(oneFleet({ stack: azureStack, ...on(size) })).pools[0]?.node.osDisk;
    expect(disk("Standard_ND96isr_H100_v5")).toBe("ephemeral");
    expect(disk("Standard_NC40ads_H100_v5")).toBe("managed");
  });
});

describe("gpu: auto", () => {
  const auto = (change: WrittenStack = {}, served = model("llama", "llama-3.1-8b")): WrittenStack => ({
    ...awsStack,
    pools: [],
    models: [served],
    fleets: [{ ...fleet, pool: undefined, gpu: "auto", ...change }],
  });

  test("takes the cheapest size that fits and says why the next cheaper does not", () => {
    const plan = planned(auto({ concurrency: 2 }));
    const [pool] = plan.pools;
    expect(pool).toMatchObject({ group: "auto-small", size: "g6.xlarge", maxNodes: 2, capacity: "on-demand" });
    expect(plan.fleets[0]?.pool).toBe("auto-small");
    const why = pool?.why.join("\n") ?? "";
    expect(why).toContain("g6.xlarge at $0.805/h is the cheapest of 5");
    expect(why).toContain("the next cheaper, g4dn.2xlarge at $0.752/h, does not do: bf16 weights need");
  });

  test("a larger model takes a larger size", () => {
    const plan = planned(auto({ concurrency: 8 }, model("llama", "llama-3.1-70b-fp8")));
    expect(plan.pools[0]).toMatchObject({ size: "g7e.12xlarge" });
    expect(plan.fleets[0]).toMatchObject({ gpusPerReplica: 2 });
  });

  test("what all replicas cost decides, not what a node does", () => {
    const pool = (max: number): unknown =>
      planned(auto({ concurrency: 1, replicas: { min: 1, max } }, large)).pools.map(({ size, maxNodes }) => [
        size,
        maxNodes,
      ]);
    // One replica each on nodes for 8.29 USD, or four on one for 27.45.
    expect(pool(1)).toEqual([["g7e.12xlarge", 1]]);
    expect(pool(4)).toEqual([["p4de.24xlarge", 1]]);
  });

  test("spot is tried first where the fleet may run on it", () => {
    expect(planned(auto({ spot: true })).pools.map(({ capacity }) => capacity)).toEqual(["spot", "on-demand"]);
  });

  test("needs prices", () => {
    expect(refusalOf({ ...auto(), region: "eu-west-2" })).toContain(
      "no price of any aws size is known in eu-west-2; name a pool in place of gpu: auto",
    );
  });

  test("a pool of the stack may not have the planner's name", () => {
    const stack = { ...auto(), pools: [{ name: "auto-small", sizes: ["g6e.xlarge"], maxNodes: 1 }] };
    expect(refusalOf(stack)).toContain("fleets[0].gpu: the planner's pool would be called `auto-small`");
  });
});

describe("scaling", () => {
  test("target and cooldown come from the KV cache and the start-up time", () => {
    const planFleet = fleetOf(oneFleet({ fleet: { replicas: { min: 0, max: 2 } } }));
    expect(planFleet.scaling.targetRequests).toBe(Math.floor(planFleet.concurrency * 0.8));
    const { nodeSeconds, imageSeconds, downloadSeconds, loadSeconds } = planFleet.transitions;
    const cold = nodeSeconds + imageSeconds + downloadSeconds + loadSeconds;
    expect(planFleet.scaling.cooldownSeconds).toBeGreaterThanOrEqual(cold);
    expect(planFleet.scaling.why.join("\n")).toContain(`${Math.ceil(cold)} s`);
  });

  test("what was measured replaces what the catalogue says", () => {
    const planFleet = fleetOf(
      oneFleet({ fleet: { transitions: { nodeSeconds: 1000, wakeSeconds: 9 }, scaling: { targetRequests: 3 } } }),
    );
    expect(planFleet.transitions).toMatchObject({ nodeSeconds: 1000, wakeSeconds: 9 });
    expect(planFleet.transitions.sources[0]).toBe("nodeSeconds: declared in the stack");
    expect(planFleet.scaling).toMatchObject({ targetRequests: 3 });
    expect(planFleet.scaling.cooldownSeconds).toBeGreaterThanOrEqual(1000);
  });

  test("an engine that cannot sleep has no time to wake", () => {
    const planFleet = fleetOf(oneFleet({ fleet: { engine: { kind: "trtllm" } } }));
    expect(planFleet.transitions.wakeSeconds).toBeNull();
  });
});

describe("models and the rest", () => {
  test("agents read from the stack's own store, whatever the origin", () => {
    const adapters = [{ name: "sql", source: "hf://x/sql" }];
    const [planModel] = planned(
      oneFleet({
        model: model("org/llama", "llama-3.1-8b", { adapters, source: "hf://meta-llama/Llama-3.1-8B@abc" }),
        fleet: { models: ["org/llama"], engine: { kind: "vllm", lora: {} } },
      }),
    ).models;
    expect(planModel).toMatchObject({
      origin: "hf://meta-llama/Llama-3.1-8B@abc",
      spec: {
        source: "s3://penstock-test-models/models/org/llama",
        adapters: [{ name: "sql", source: "s3://penstock-test-models/adapters/org/llama/sql" }],
      },
    });
  });

  test("a file keeps its name, and what is in the store stays where it is", () => {
    const gguf = (source: string): string | undefined =>
      planned(
        oneFleet({
          model: model("llama", "llama-3.1-8b", { format: "gguf", source }),
          fleet: { engine: { kind: "llamacpp" } },
        }),
      ).models[0]?.spec.source;
    expect(gguf("hf://x/y/llama-q4.gguf@abc")).toBe("s3://penstock-test-models/models/llama/llama-q4.gguf");
    expect(gguf("s3://penstock-test-models/mine/x.gguf")).toBe("s3://penstock-test-models/mine/x.gguf");
  });

  test("prod is managed and spread, dev is in the cluster", () => {
    const prod = planned({ ...azureStack, environment: "prod" });
    expect(prod).toMatchObject({
      redis: { mode: "managed", highAvailability: true },
      postgres: { mode: "managed", highAvailability: true },
      observability: { mode: "managed" },
      cache: { redundancy: "ZRS" },
      cluster: { system: { minNodes: 3 } },
    });
    expect(planned(azureStack)).toMatchObject({
      redis: { mode: "in-cluster" },
      postgres: { mode: "in-cluster" },
      observability: { mode: "in-cluster" },
      cache: { redundancy: "LRS" },
    });
    expect(prod.addOns.map(({ name }) => name)).not.toContain("kube-prometheus-stack");
  });

  test("everything has a reason", () => {
    const plan = planned(azureStack);
    const parts = [...plan.pools, ...plan.models, ...plan.fleets, ...plan.addOns];
    const whole = [plan.cluster, plan.gateway, plan.cache, plan.redis, plan.postgres, plan.network, plan.budget];
    for (const { why } of [...parts, ...whole]) expect(why.length).toBeGreaterThan(0);
  });
});
