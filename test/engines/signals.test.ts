import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { engineSpec, type EngineKind } from "../../runtime/contracts/engine.ts";
import { engineSignals, type EngineMetrics, type EngineSignal } from "../../runtime/engines/engine.ts";
import { engineOf, engines } from "../../runtime/engines/index.ts";
import { readKvTokens, readSignals } from "../../runtime/engines/signals.ts";
import { repository } from "../support/repository.ts";

interface Page {
  readonly spec: { readonly kind: EngineKind; readonly backend?: string };
  /** In test/engines/metrics; its first lines say where it is from. */
  readonly file: string;
  /** What it says; a signal that is left out is not there. */
  readonly says: Partial<Record<EngineSignal, number>>;
  /** Tokens of the KV cache; left out where the engine does not say. */
  readonly kvTokens?: number;
}

const pages: readonly Page[] = [
  {
    spec: { kind: "embedded" },
    file: "embedded.txt",
    says: {
      running: 0,
      waiting: 0,
      kvUsage: 0.00341796875,
      prefixQueriesTotal: 5,
      prefixHitsTotal: 0,
      promptTokensTotal: 5,
      generationTokensTotal: 2,
    },
    kvTokens: 16384,
  },
  {
    spec: { kind: "llamacpp" },
    file: "llama-server-v0.4.0.txt",
    says: { running: 0, waiting: 0, prefixHitsTotal: 0, promptTokensTotal: 10, generationTokensTotal: 4 },
    kvTokens: 4 * 8192,
  },
  {
    spec: { kind: "vllm" },
    file: "vllm-0.22.1.txt",
    says: {
      running: 3,
      waiting: 2,
      kvUsage: 0.25,
      prefixQueriesTotal: 1200,
      prefixHitsTotal: 400,
      promptTokensTotal: 1300,
      generationTokensTotal: 900,
    },
    kvTokens: 27_000 * 16,
  },
  {
    spec: { kind: "vllm" },
    file: "vllm-old-names.txt",
    says: {
      running: 3,
      waiting: 0,
      kvUsage: 0.5,
      prefixQueriesTotal: 10,
      prefixHitsTotal: 4,
      promptTokensTotal: 11,
      generationTokensTotal: 7,
    },
  },
  {
    spec: { kind: "triton", backend: "tensorrtllm" },
    file: "triton-tensorrtllm.txt",
    says: { running: 3, waiting: 2, kvUsage: 0.6 },
    kvTokens: 1_000 * 64,
  },
  {
    spec: { kind: "triton", backend: "vllm" },
    file: "triton-vllm.txt",
    says: { waiting: 4, promptTokensTotal: 10, generationTokensTotal: 16 },
  },
  {
    spec: { kind: "trtllm" },
    file: "trtllm-serve.txt",
    says: {
      running: 5,
      waiting: 3,
      kvUsage: 0.62,
      prefixQueriesTotal: 640,
      prefixHitsTotal: 128,
      promptTokensTotal: 640,
      generationTokensTotal: 256,
    },
    kvTokens: 5_000 * 32,
  },
];

const nothing = Object.fromEntries(engineSignals.map((signal) => [signal, null]));

describe("signals of a metrics page", () => {
  test.each(pages)("$file", ({ spec: given, file, says, kvTokens = null }) => {
    const spec = engineSpec.parse(given);
    const page = readFileSync(join(repository, "test/engines/metrics", file), "utf8");
    expect(readSignals(engineOf(spec).metrics(spec), page)).toEqual({ values: { ...nothing, ...says }, missing: [] });
    expect(readKvTokens(engineOf(spec).metrics(spec), page)).toBe(kvTokens);
  });

  test("every kind of engine has a page", () => {
    expect(new Set(pages.map(({ spec }) => spec.kind))).toEqual(new Set(Object.keys(engines)));
  });

  test("what is not there is null and missing, never 0", () => {
    const spec = engineSpec.parse({ kind: "vllm" });
    const { values, missing } = readSignals(engineOf(spec).metrics(spec), "");
    expect(values).toEqual(nothing);
    expect(missing).toEqual(engineSignals);
  });
});

describe("the KV cache's tokens", () => {
  const spec = engineSpec.parse({ kind: "vllm" });
  test.each([
    [
      "are told by newer versions, whatever the blocks are",
      'block_size="4",num_gpu_blocks="9",kv_cache_size_tokens="512"',
      512,
    ],
    ["are blocks and their size", 'block_size="16",num_gpu_blocks="100",engine="0"', 1_600],
    ["are not there while the engine starts", 'block_size="16",num_gpu_blocks="None"', null],
    ["are not there without a size", 'num_gpu_blocks="100"', null],
    ["are not believed beyond all bounds", 'block_size="1e9",num_gpu_blocks="1e300"', null],
    ["are not negative", 'block_size="-16",num_gpu_blocks="100"', null],
  ])("%s", (_title, labels, tokens) => {
    expect(readKvTokens(engineOf(spec).metrics(spec), `vllm:cache_config_info{${labels}} 1.0`)).toBe(tokens);
  });

  test("of a data-parallel server are those of all its engines", () => {
    const page = [0, 1].map((at) => `vllm:cache_config_info{block_size="16",engine="${at}",num_gpu_blocks="10"} 1.0`);
    expect(readKvTokens(engineOf(spec).metrics(spec), page.join("\n"))).toBe(320);
  });
});

describe("reading", () => {
  const metrics: EngineMetrics = {
    call: { method: "GET", path: "/metrics" },
    names: {
      running: [{ name: "new" }, { name: "old" }],
      waiting: [{ name: "typed", labels: { type: "waiting" } }],
      kvUsage: [],
      prefixQueriesTotal: [],
      prefixHitsTotal: [],
      promptTokensTotal: [],
      generationTokensTotal: [],
    },
    kvTokens: () => null,
  };
  const { values } = { values: (page: string) => readSignals(metrics, page).values };

  test.each([
    ["a new name wins over an old one", "old 1\nnew 2", { running: 2 }],
    ["an old name stands in", "old 1", { running: 1 }],
    ["a new name that is 0 still wins", "old 1\nnew 0", { running: 0 }],
    ["series are added up", 'new{a="1"} 1\nnew{a="2"} 2.5', { running: 3.5 }],
    ["labels choose", 'typed{type="active"} 5\ntyped{model="a",type="waiting"} 3', { waiting: 3 }],
    ["a label may hold a brace, a quote and a comma", 'typed{m="a}\\",b",type="waiting"} 3', { waiting: 3 }],
    ["a time stamp may follow", "new 4 1700000000000", { running: 4 }],
    ["comments and longer names are others", "# new 9\nnewer 9\nnew_total 9", {}],
    ["what is no number is not there", "new NaN\ntyped{} +Inf", {}],
    ["carriage returns are of no account", "new 1\r\n", { running: 1 }],
  ])("%s", (_title, page, says) => {
    expect(values(page)).toEqual({ ...nothing, ...says });
  });
});
