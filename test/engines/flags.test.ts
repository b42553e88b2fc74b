import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { engineSpec, type EngineKind } from "../../runtime/contracts/engine.ts";
import { helpText as embeddedHelp } from "../../runtime/embedded/options.ts";
import type { Version } from "../../runtime/engines/engine.ts";
import { engineOf } from "../../runtime/engines/index.ts";
import { repository } from "../support/repository.ts";
import { kinds, launches, placeOf } from "./specs.ts";

const recorded = (file: string): string => readFileSync(join(repository, "test/contract/engine/help", file), "utf8");

/** What each program's help lists in the version that Penstock was written against. */
const help: Readonly<Record<EngineKind, string>> = {
  embedded: embeddedHelp,
  llamacpp: recorded("llama-server-v0.4.0.txt"),
  vllm: recorded("vllm-0.22.1.txt"),
  triton: recorded("main.py-2.70.0.txt"),
  trtllm: recorded("trtllm-serve-1.3.0.txt"),
};

/**
 * Flags of `ray start`, which vLLM needs over several nodes. There is no record of its help: vLLM's own
 * examples/online_serving/multi-node-serving.sh has the first four, Ray's documentation the others.
 */
const rayFlags = [
  "--head",
  "--port",
  "--address",
  "--block",
  "--num-gpus",
  "--include-dashboard",
  "--disable-usage-stats",
];

/** Flag -> the values that it is limited to; empty when it is not. */
function flagsIn(page: string): Map<string, string[]> {
  const flags = new Map<string, string[]>();
  for (const line of page.split("\n")) {
    if (!/^\s*-/.test(line)) continue;
    const names = [...line.matchAll(/(?<![\w-])--?[a-zA-Z][\w-]*/g)].map(([name]) => name);
    const choices = /\{([\w.,-]+)\}|\[([\w|]+)\]/.exec(line);
    const values = (choices?.[1]?.split(",") ?? choices?.[2]?.split("|") ?? []).map((value) => value.trim());
    for (const name of names) flags.set(name, values);
  }
  return flags;
}

/** Flags of a command line with what follows them. */
function given(command: readonly string[]): { flag: string; values: string[] }[] {
  const found: { flag: string; values: string[] }[] = [];
  for (const word of command) {
    if (/^--?[a-zA-Z]/.test(word)) found.push({ flag: word.replace(/=.*/s, ""), values: [] });
    else found.at(-1)?.values.push(word);
  }
  return found;
}

const noValues: readonly string[] = [];
const ray = new Map(rayFlags.map((flag) => [flag, noValues]));

/** What a program would refuse of a command line. */
function refused(command: readonly string[], known: ReadonlyMap<string, readonly string[]>): string[] {
  return given(command).flatMap(({ flag, values }) => {
    const choices = known.get(flag);
    if (choices === undefined) return [flag];
    return choices.length === 0
      ? []
      : values.filter((value) => !choices.includes(value)).map((value) => `${flag} ${value}`);
  });
}

test.each(kinds)("%s gets no flag that its help does not list, and no value that it would refuse", (kind) => {
  const known = flagsIn(help[kind]);
  expect(known.size).toBeGreaterThan(5);
  fc.assert(
    fc.property(launches(kind), ({ spec, place }) => {
      const { command } = engineOf(spec).launch(spec, place);
      expect(refused(command, command[0] === "ray" ? ray : known)).toEqual([]);
    }),
    { numRuns: 500 },
  );
});

test("what a help does not list is found", () => {
  const known = flagsIn("--dtype {auto,half}\n-fa, --flash-attn [on|off|auto] text");
  expect(refused(["x", "--dtype", "half", "-fa", "on"], known)).toEqual([]);
  expect(refused(["x", "--dtype", "int3", "--trust", "-fa", "maybe"], known)).toEqual([
    "--dtype int3",
    "--trust",
    "-fa maybe",
  ]);
});

/** Flags that a version brought: absent below it, there from it on. */
const gates: readonly { kind: EngineKind; flag: string; since: Version; below: Version }[] = [
  { kind: "vllm", flag: "--disable-access-log-for-endpoints", since: [0, 16, 0], below: [0, 15, 9] },
  { kind: "vllm", flag: "--shutdown-timeout", since: [0, 18, 0], below: [0, 17, 2] },
  { kind: "trtllm", flag: "--config", since: [1, 3, 0], below: [1, 2, 9] },
  { kind: "trtllm", flag: "--served_model_name", since: [1, 3, 0], below: [1, 2, 9] },
];

describe.each(gates)("$kind $flag", ({ kind, flag, since, below }) => {
  const spec = engineSpec.parse({ kind });
  const at = (version: Version | null): readonly string[] =>
    engineOf(spec).launch(spec, placeOf(kind, { version })).command;

  test.each([[since], [[since[0], since[1] + 1, 0]], [[since[0] + 1, 0, 0]], [null]] satisfies [Version | null][])(
    "is there at %s",
    (version) => {
      expect(at(version)).toContain(flag);
    },
  );

  test.each([[below], [[0, 1, 0]]] satisfies [Version][])("is not there at %s", (version) => {
    expect(at(version)).not.toContain(flag);
  });
});

test("an old TensorRT-LLM reads its options by their old name", () => {
  const spec = engineSpec.parse({ kind: "trtllm" });
  const { command } = engineOf(spec).launch(spec, placeOf("trtllm", { version: [1, 1, 0] }));
  expect(command).toContain("--extra_llm_api_options");
});

describe("every option of a spec reaches the engine", () => {
  const names = new Map<EngineKind, Set<string>>();
  beforeAll(() => {
    for (const kind of kinds) {
      const used = new Set<string>();
      for (const { spec, place } of fc.sample(launches(kind), 500)) {
        for (const { flag } of given(engineOf(spec).launch(spec, place).command)) used.add(flag);
      }
      names.set(kind, used);
    }
  });

  test.each([
    {
      kind: "vllm",
      flags:
        "--max-model-len --max-num-seqs --max-num-batched-tokens --quantization --kv-cache-dtype --dtype --enforce-eager " +
        "--no-enable-prefix-caching --no-enable-chunked-prefill --load-format --model-loader-extra-config " +
        "--enable-sleep-mode --enable-lora --max-loras --max-lora-rank --max-cpu-loras --lora-modules " +
        "--speculative-config --tool-call-parser --enable-auto-tool-choice --reasoning-parser --runner " +
        "--distributed-executor-backend --tensor-parallel-size --pipeline-parallel-size --gpu-memory-utilization",
    },
    {
      kind: "llamacpp",
      flags:
        "--ctx-size --parallel --n-gpu-layers --split-mode --tensor-split --flash-attn --cache-type-k --cache-type-v " +
        "--threads --lora --embeddings --jinja --ubatch-size --metrics",
    },
    { kind: "trtllm", flags: "--backend --tp_size --pp_size --max_batch_size --max_seq_len --max_num_tokens" },
    { kind: "triton", flags: "--backend --model-control-mode --tokenizer" },
    {
      kind: "embedded",
      flags: "--n-ctx --n-gpu-layers --max-concurrent-requests --parallel --memory --threads --lora",
    },
  ] as const)("$kind", ({ kind, flags }) => {
    expect([...(names.get(kind) ?? [])]).toEqual(expect.arrayContaining(flags.split(" ")));
  });
});
