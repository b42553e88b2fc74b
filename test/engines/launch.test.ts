import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { engineSpec, type EngineKind } from "../../runtime/contracts/engine.ts";
import type { EngineCall, EngineLaunch, EnginePlace } from "../../runtime/engines/engine.ts";
import { engineOf } from "../../runtime/engines/index.ts";
import { kinds, launches, placeOf } from "./specs.ts";

interface Golden {
  readonly title: string;
  readonly spec: Record<string, unknown>;
  readonly place?: Partial<EnginePlace>;
}

const group = (index: number) => ({ leaderAddress: "llama-0.llama.default", size: 2, index });

/** What is worth reading as a whole: each is a section of test/engines/golden/<kind>.txt. */
const golden: Readonly<Record<EngineKind, readonly Golden[]>> = {
  embedded: [
    { title: "defaults", spec: {} },
    {
      title: "every option",
      spec: { threads: 4, memory: "eager" },
      place: { adapters: { legal: "/adapters/legal.gguf" } },
    },
  ],
  llamacpp: [
    { title: "defaults", spec: {} },
    { title: "on the CPU", spec: { gpuLayers: 0, threads: 8 }, place: { gpus: [] } },
    {
      title: "larger than two GPUs, with adapters",
      spec: { gpuCount: 2, unifiedMemory: true, kvCacheType: "q8_0" },
      place: { gpus: [2, 3], adapters: { legal: "/adapters/legal.gguf", odd: '/adapters/a,"b".gguf' } },
    },
    { title: "an embedding model", spec: { task: "embed", contextSize: 2048 } },
  ],
  vllm: [
    { title: "defaults", spec: {} },
    { title: "an old version", spec: {}, place: { version: [0, 15, 0] } },
    {
      title: "adapters at run time",
      spec: { lora: { maxLoras: 2, maxRank: 64, maxCpuLoras: 8 } },
      place: { adapters: { legal: "/adapters/legal" } },
    },
    { title: "half a GPU, deep sleep", spec: { gpuMemoryUtilization: 0.45, sleepLevel: 2, enforceEager: true } },
    { title: "4 bits", spec: { quantization: "bitsandbytes" } },
    {
      title: "8 GPUs, FP8, tools, a draft model",
      spec: {
        tensorParallel: 8,
        quantization: "fp8",
        kvCacheDtype: "fp8",
        maxModelLen: 131_072,
        speculative: { method: "eagle3", model: "/cache/eagle3" },
        toolCallParser: "llama3_json",
        reasoningParser: "deepseek_r1",
      },
      place: { gpus: [0, 1, 2, 3, 4, 5, 6, 7] },
    },
    {
      title: "streamed from Azure",
      spec: { loadFormat: "runai_streamer", tensorParallel: 2, sleepLevel: 0 },
      place: { gpus: [0, 1], modelPath: "az://weights/models/llama-3.1-70b" },
    },
    {
      title: "two nodes: the leader",
      spec: { tensorParallel: 8, pipelineParallel: 2, nodes: 2 },
      place: { gpus: [0, 1, 2, 3, 4, 5, 6, 7], group: group(0) },
    },
    {
      title: "two nodes: the worker",
      spec: { tensorParallel: 8, pipelineParallel: 2, nodes: 2 },
      place: { gpus: [0, 1, 2, 3, 4, 5, 6, 7], group: group(1) },
    },
    { title: "an embedding model", spec: { task: "embed", maxNumSeqs: 64, maxNumBatchedTokens: 8192 } },
  ],
  triton: [
    { title: "vLLM inside", spec: { maxModelLen: 8192 } },
    { title: "an embedding model", spec: { task: "embed" } },
    {
      title: "TensorRT-LLM inside, on two GPUs",
      spec: { backend: "tensorrtllm", tensorParallel: 2 },
      place: { gpus: [0, 1] },
    },
  ],
  trtllm: [
    { title: "defaults", spec: {} },
    { title: "before 1.3", spec: {}, place: { version: [1, 1, 0] } },
    {
      title: "a built engine on four GPUs",
      spec: { backend: "tensorrt", tensorParallel: 4, maxBatchSize: 32, maxSeqLen: 8192, maxNumTokens: 4096 },
      place: { gpus: [4, 5, 6, 7] },
    },
  ],
};

describe("what is started", () => {
  test.each(kinds)("%s", async (kind) => {
    const sections = golden[kind].map(({ title, spec, place }) => {
      const parsed = engineSpec.parse({ kind, ...spec });
      return `# ${title}\n\n${rendered(engineOf(parsed).launch(parsed, placeOf(kind, place)))}`;
    });
    // The program's path differs between checkouts.
    const text = sections.join("\n\n").replaceAll(process.execPath, "node").replaceAll(process.cwd(), ".");
    await expect(`${text}\n`).toMatchFileSnapshot(`golden/${kind}.txt`);
  });
});

/** Where each engine is told the name that clients use; null for vLLM's workers and an old TensorRT-LLM, which are not. */
const nameOf: Readonly<Record<EngineKind, (launch: EngineLaunch) => string | null>> = {
  embedded: ({ command }) => valueOf(command, "--served-model-name"),
  llamacpp: ({ command }) => valueOf(command, "--alias"),
  vllm: ({ command }) => valueOf(command, "--served-model-name"),
  triton: ({ afterReady }) => /^\/v1\/models\/(.+)\/load$/.exec(afterReady.at(-1)?.path ?? "")?.[1] ?? null,
  trtllm: ({ command }) => valueOf(command, "--served_model_name"),
};

describe.each(kinds)("whatever the spec, %s", (kind) => {
  const each = (check: (launch: EngineLaunch, place: EnginePlace) => void): void => {
    fc.assert(
      fc.property(launches(kind), ({ spec, place }) => {
        check(engineOf(spec).launch(spec, place), place);
      }),
      { numRuns: 300 },
    );
  };

  test("listens on loopback alone, on its own port", () => {
    each((launch, place) => {
      if (isRayWorker(launch)) return;
      expect(valueOf(launch.command, "--host")).toBe("127.0.0.1");
      expect([valueOf(launch.command, "--port"), valueOf(launch.command, "--openai-port")]).toContain(
        String(place.ports.api),
      );
      expect(launch.command.join(" ")).not.toMatch(/0\.0\.0\.0|\s::/);
    });
  });

  test("answers to the name that clients use", () => {
    each((launch, place) => {
      const isOldTrtllm = kind === "trtllm" && place.version !== null && place.version[1] < 3 && place.version[0] < 2;
      expect(nameOf[kind](launch)).toBe(isRayWorker(launch) || isOldTrtllm ? null : place.servedName);
    });
  });

  test("runs no code that comes with a model", () => {
    each((launch) => expect(JSON.stringify(launch)).not.toMatch(/trust.?remote.?code/i));
  });

  test("carries no secret", () => {
    each(({ command, env, files, prelude }) => {
      expect(Object.keys(env).join(" ")).not.toMatch(/key|token|secret|password|credential/i);
      expect(JSON.stringify([command, files, prelude])).not.toMatch(/api.?key|secret|password|credential|hf.?token/i);
    });
  });

  test("sees the GPUs that it was given and no other", () => {
    each(({ env }, { gpus }) => {
      if (kind === "embedded") return;
      expect(env).toMatchObject({ CUDA_DEVICE_ORDER: "PCI_BUS_ID", CUDA_VISIBLE_DEVICES: gpus.join(",") });
    });
  });

  test("writes into its own folder alone, and says nothing unfinished", () => {
    each(({ command, env, files, prelude }) => {
      for (const path of Object.keys(files)) expect(path).toMatch(/^(?!\/)(?!.*(^|\/)\.\.(\/|$)).+/);
      const words = [...command, ...prelude.flat(), ...Object.values(files), ...Object.values(env)];
      expect(words.filter((word) => /undefined|NaN|\[object/.test(word))).toEqual([]);
      expect([...command, ...prelude.flat()]).not.toContain("");
    });
  });

  test("is ready and healthy at an address, or is a worker", () => {
    each((launch) => {
      expect(launch.ready === null).toBe(isRayWorker(launch));
      expect(launch.health === null).toBe(isRayWorker(launch));
    });
  });
});

test("a group that is not as large as the spec says is refused", () => {
  const spec = engineSpec.parse({ kind: "vllm", nodes: 2, tensorParallel: 2 });
  expect(() => engineOf(spec).launch(spec, placeOf("vllm"))).toThrow(/wants 2 nodes.*has 1/);
});

test.each([
  { spec: { kind: "triton" }, servedName: "meta/llama" },
  { spec: { kind: "triton", backend: "tensorrtllm" }, servedName: "preprocessing" },
])("Triton refuses the name $servedName", ({ spec, servedName }) => {
  const parsed = engineSpec.parse(spec);
  expect(() => engineOf(parsed).launch(parsed, placeOf("triton", { servedName }))).toThrow(/another id/);
});

test("Triton refuses a path that its templates would divide", () => {
  const spec = engineSpec.parse({ kind: "triton", backend: "tensorrtllm" });
  expect(() => engineOf(spec).launch(spec, placeOf("triton", { modelPath: "/cache/a,b" }))).toThrow(/`,` or a `:`/);
});

function valueOf(command: readonly string[], flag: string): string | null {
  const at = command.indexOf(flag);
  return at === -1 ? null : (command[at + 1] ?? null);
}

function isRayWorker({ command }: EngineLaunch): boolean {
  return command[0] === "ray";
}

function rendered(launch: EngineLaunch): string {
  return [
    ...launch.prelude.map((words) => `first: ${lines(words)}`),
    lines(launch.command),
    ...Object.entries(launch.env).map(([name, value]) => `env: ${name}=${value}`),
    ...Object.entries(launch.files).map(
      ([path, content]) => `file: ${path}\n${content.replaceAll(/^/gm, "  | ").trimEnd()}`,
    ),
    `ready: ${called(launch.ready)}`,
    `health: ${called(launch.health)}`,
    ...launch.afterReady.map((call) => `then: ${called(call)}`),
    `lifeline: ${launch.lifeline}`,
  ].join("\n");
}

/** Each flag on a line with its values. */
function lines(words: readonly string[]): string {
  return words
    .map((word) => (word.startsWith("-") ? `\n  ${word}` : ` ${word}`))
    .join("")
    .trimStart();
}

function called(call: EngineCall | null): string {
  if (call === null) return "never";
  const body = call.body === undefined ? "" : ` ${JSON.stringify(call.body)}`;
  return `${call.method} ${call.port ?? "api"} ${call.path}${body}`;
}
