import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { engineSpec, type EngineSpec } from "../../runtime/contracts/engine.ts";
import { engineOf, engines } from "../../runtime/engines/index.ts";
import { kinds, launches, placeOf, specs } from "./specs.ts";

const name = "llama-3.1-8b";
const adapter = { name: "legal", servedName: name, path: "/adapters/legal" };

describe.each(kinds)("%s does what it says it can, and nothing else", (kind) => {
  const { capabilities } = engines[kind];
  const engine = engineOf({ kind });
  const any: fc.Arbitrary<EngineSpec> = specs[kind];
  const each = (check: (spec: EngineSpec) => void): void => {
    fc.assert(
      fc.property(any, (spec) => {
        check(spec);
      }),
    );
  };
  /** Whether some spec out of many is so. */
  const some = (is: (spec: EngineSpec) => boolean): boolean => fc.sample(any, 500).some(is);

  test("sleep", () => {
    expect(some((spec) => engine.sleep(spec, name) !== null)).toBe(capabilities.sleep);
    each((spec) => {
      const calls = engine.sleep(spec, name);
      const wakes = engine.wake(spec, name);
      expect(calls?.length).not.toBe(0);
      expect(wakes.length > 0).toBe(calls !== null);
      expect([...(calls ?? []), ...wakes].every(({ method }) => method === "POST")).toBe(true);
    });
  });

  test("adapters", () => {
    expect(some((spec) => engine.adapterLimits(spec).count > 0)).toBe(capabilities.adapters !== "none");
    const isRuntime = capabilities.adapters === "runtime";
    const path = (action: string) => ({ method: "POST", path: `/v1/${action}_lora_adapter` });
    expect(outcome(() => engine.loadAdapter(adapter))).toMatchObject(
      isRuntime ? path("load") : { code: "unsupported" },
    );
    expect(outcome(() => engine.unloadAdapter(adapter))).toMatchObject(
      isRuntime ? path("unload") : { code: "unsupported" },
    );
  });

  test("adapters from the start", () => {
    fc.assert(
      fc.property(launches(kind), ({ spec, place }) => {
        const { command, ready } = engine.launch(spec, { ...place, adapters: { legal: "/adapters/legal" } });
        const isTold = command.some((word) => word.includes("/adapters/legal"));
        expect(isTold).toBe(ready !== null && engine.adapterLimits(spec).count > 0);
      }),
    );
  });

  test("several GPUs", () => {
    const splits = some((spec) => (engine.gpus(spec, 2 ** 30)?.count ?? 0) > 1);
    expect(splits).toBe(capabilities.tensorParallel || capabilities.pipelineParallel);
  });

  test("several nodes", () => {
    expect(some((spec) => "nodes" in spec && spec.nodes > 1)).toBe(capabilities.multiNode);
  });

  test("no GPU", () => {
    expect(some((spec) => engine.gpus(spec, 2 ** 30) === null)).toBe(capabilities.cpu);
  });

  test("embeddings", () => {
    const task = (spec: EngineSpec): string => ("task" in spec ? spec.task : "generate");
    each((spec) => {
      const probes = engine.golden(spec, name);
      expect(probes.length).toBeGreaterThan(0);
      const isEmbed = task(spec) === "embed";
      expect(probes[0]?.kind).toBe(isEmbed && capabilities.embeddings ? "embedding" : "completion");
      const isRefused = engine.refusals(spec).some((refusal) => /embed/i.test(refusal));
      expect(isEmbed && !capabilities.embeddings && !isRefused).toBe(false);
    });
  });

  test("its probes are the same each time, and ask for the model by its name", () => {
    each((spec) => {
      const probes = engine.golden(spec, `${name}:legal`);
      expect(engine.golden(spec, `${name}:legal`)).toEqual(probes);
      for (const { call } of probes) expect(call.body).toMatchObject({ model: `${name}:legal` });
      const completions = probes.filter((probe) => probe.kind === "completion");
      for (const { call } of completions) expect(call.body).toMatchObject({ temperature: 0, seed: 1 });
    });
  });

  test("streams only what it can read, and no signed address", () => {
    each((spec) => {
      const formats = engine.formats(spec);
      expect(formats.length).toBeGreaterThan(0);
      expect(engine.streams(spec, "file:///models/a")).toBe(false);
      expect(engine.streams(spec, "az://account/container/model?sig=abc")).toBe(false);
      expect(engine.streams(spec, "s3://bucket/model") && !formats.includes("safetensors")).toBe(false);
    });
  });

  test("its versions are in order", () => {
    const { version } = engines[kind];
    const { argv, minimum, pinned } = version ?? { argv: ["--version"], minimum: [0, 0, 0], pinned: [0, 0, 1] };
    expect(argv.length).toBeGreaterThan(0);
    const asNumber = ([a, b, c]: readonly number[]): number => (a ?? 0) * 1e8 + (b ?? 0) * 1e4 + (c ?? 0);
    expect(asNumber(minimum)).toBeLessThanOrEqual(asNumber(pinned));
  });
});

/** What a call gives, or what it throws. */
function outcome(call: () => unknown): unknown {
  try {
    return call();
  } catch (error) {
    return error;
  }
}

describe("memory of GPUs", () => {
  test.each([
    [{ kind: "embedded" }, null],
    [{ kind: "llamacpp", gpuLayers: 0 }, null],
    [
      { kind: "llamacpp", unifiedMemory: true },
      { count: 1, memory: { fraction: 0.9 }, nvlink: false, asleepBytes: 0 },
    ],
    [{ kind: "vllm" }, { count: 1, memory: { fraction: 0.9 }, nvlink: false, asleepBytes: 2 * 2 ** 30 }],
    [
      { kind: "vllm", sleepLevel: 0, tensorParallel: 2 },
      { count: 2, memory: { fraction: 0.9 }, nvlink: false, asleepBytes: 0 },
    ],
    [
      { kind: "vllm", tensorParallel: 8, pipelineParallel: 2, nodes: 2, gpuMemoryUtilization: 0.8 },
      { count: 8, memory: { fraction: 0.8 }, nvlink: true, asleepBytes: 2 * 2 ** 30 },
    ],
    [
      { kind: "triton", gpuMemoryUtilization: 0.4 },
      { count: 1, memory: { fraction: 0.4 }, nvlink: false, asleepBytes: 2 ** 30 },
    ],
    [
      { kind: "triton", backend: "tensorrtllm" },
      { count: 1, memory: { fraction: 1 }, nvlink: false, asleepBytes: 2 ** 30 },
    ],
    [
      { kind: "trtllm", tensorParallel: 4, pipelineParallel: 2 },
      { count: 8, memory: { fraction: 1 }, nvlink: true, asleepBytes: 0 },
    ],
  ])("%j", (given, need) => {
    const spec = engineSpec.parse(given);
    expect(engineOf(spec).gpus(spec, 10 * 2 ** 30)).toEqual(need);
  });
});

describe("memory of a llama-server", () => {
  const gib = 2 ** 30;
  const bytesOf = (given: Record<string, unknown>, weightsBytes: number): number => {
    const spec = engineSpec.parse({ kind: "llamacpp", parallelSequences: 1, ...given });
    const memory = engineOf(spec).gpus(spec, weightsBytes)?.memory;
    return memory !== undefined && "bytes" in memory ? memory.bytes / gib : NaN;
  };

  // KV cache by the models' shapes: 128 KiB a token for 8B, 320 KiB for 70B.
  test.each([
    { model: "8B in 4 bits", weights: 4.6, given: { contextSize: 8192 }, atLeast: 4.6 + 1 + 0.4, atMost: 7.5 },
    { model: "70B in 4 bits", weights: 40, given: { contextSize: 8192 }, atLeast: 40 + 2.5 + 4 - 0.001, atMost: 48 },
    { model: "8B, long", weights: 4.6, given: { contextSize: 32_768, parallelSequences: 4 }, atLeast: 21, atMost: 32 },
  ])("$model", ({ weights, given, atLeast, atMost }) => {
    expect(bytesOf(given, weights * gib)).toBeGreaterThan(atLeast);
    expect(bytesOf(given, weights * gib)).toBeLessThan(atMost);
  });

  test("is divided over GPUs, and smaller with a smaller KV cache", () => {
    const of = (given: Record<string, unknown>) => bytesOf({ contextSize: 32_768, ...given }, 4 * gib);
    expect(of({ gpuCount: 2 })).toBeCloseTo(of({}) / 2, 6);
    expect(of({ kvCacheType: "q8_0" })).toBeLessThan(of({}));
    expect(of({ kvCacheType: "q4_0" })).toBeLessThan(of({ kvCacheType: "q8_0" }));
  });
});

describe("sleep and wake, in order", () => {
  const calls = (given: unknown) => {
    const spec = engineSpec.parse(given);
    const engine = engineOf(spec);
    const paths = [...(engine.sleep(spec, name) ?? []), ...engine.wake(spec, name)].map(({ path }) => path);
    return paths.join(" ");
  };

  test.each([
    [{ kind: "vllm", sleepLevel: 1 }, "/sleep?level=1 /wake_up"],
    [
      { kind: "vllm", sleepLevel: 2 },
      "/sleep?level=2 /wake_up?tags=weights /collective_rpc /wake_up?tags=kv_cache /reset_prefix_cache",
    ],
    [{ kind: "triton" }, `/v1/models/${name}/unload /v1/models/${name}/load`],
    [
      { kind: "triton", backend: "tensorrtllm" },
      `/v1/models/${name}/unload /v1/models/tensorrt_llm/unload /v1/models/postprocessing/unload ` +
        "/v1/models/preprocessing/unload /v1/models/preprocessing/load /v1/models/postprocessing/load " +
        `/v1/models/tensorrt_llm/load /v1/models/${name}/load`,
    ],
    [{ kind: "llamacpp" }, ""],
    [{ kind: "trtllm" }, ""],
    [{ kind: "embedded" }, ""],
  ])("%j", (given, paths) => {
    expect(calls(given)).toBe(paths);
  });

  test("vLLM reloads its weights by the call that its documentation names", () => {
    const spec = engineSpec.parse({ kind: "vllm", sleepLevel: 2 });
    expect(engineOf(spec).wake(spec, name)[1]?.body).toEqual({ method: "reload_weights" });
  });

  test("a vLLM that may sleep serves the calls for it, and another does not", () => {
    const env = (sleepLevel: number) => {
      const spec = engineSpec.parse({ kind: "vllm", sleepLevel });
      return engineOf(spec).launch(spec, placeOf("vllm")).env;
    };
    expect(env(1)).toMatchObject({ VLLM_SERVER_DEV_MODE: "1" });
    expect(env(0)).not.toHaveProperty("VLLM_SERVER_DEV_MODE");
  });
});

test("a vLLM adapter is loaded by the name that clients use", () => {
  expect(engines.vllm.loadAdapter(adapter).body).toEqual({ lora_name: `${name}:legal`, lora_path: adapter.path });
});
