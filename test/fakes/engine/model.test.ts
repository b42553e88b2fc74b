import { array, assert, boolean, integer, nat, property, record } from "fast-check";
import { describe, expect, test } from "vitest";
import { Flags, parseArguments, UsageError } from "./argv.ts";
import { BlockHasher, BlockPool } from "./blocks.ts";
import { costProfiles, decodeMs, prefillMs, stepMs, transferMs, type ProfileName } from "./cost.ts";
import { exposition, Histogram, histogram, single } from "./metrics.ts";
import { Batch, type SequenceWork } from "./scheduler.ts";
import { answerSeed, answerToken, countTokens, detokenize, embeddingOf, tokenize } from "./text.ts";

describe("cost", () => {
  /** Tokens per ms at 1k, 8k and 16k; ms at B = 1, 32, 128 with 1k of context each, and at B = 64 with 4k. */
  const published: readonly [ProfileName, readonly number[], readonly number[]][] = [
    ["8b-h100-tp1", [48.0, 40.8, 36.9], [5.9, 8.1, 12.4, 17.7]],
    ["8b-a100-tp1", [16.3, 14.3, 12.2], [11.5, 15.0, 24.1, 32.8]],
    ["70b-h100-tp4", [16.0, 14.2, 14.5], [14.0, 16.0, 22.7, 23.6]],
    ["70b-h100-tp8", [23.8, 24.5, 24.4], [9.4, 10.2, 13.6, 14.5]],
    ["70b-a100-tp4", [5.8, 6.1, 5.6], [26.4, 32.7, 45.3, 45.4]],
    ["70b-a100-tp8", [8.4, 10.1, 9.6], [16.4, 20.4, 27.7, 26.8]],
  ];

  const within = (part: number, value: number, wanted = 0): boolean => Math.abs(value - wanted) <= wanted * part;

  test.each(published)("%s is within a third of the measured kernels", (name, prefill, decode) => {
    const profile = costProfiles[name];
    const speeds = [1_024, 8_192, 16_384].map((tokens) => tokens / prefillMs(profile, tokens));
    const times = [
      [1, 1_024],
      [32, 1_024],
      [128, 1_024],
      [64, 4_096],
    ].map(([sequences = 0, context = 0]) => decodeMs(profile, sequences, sequences * context));
    for (const [index, value] of speeds.entries()) expect(within(1 / 3, value, prefill[index])).toBe(true);
    for (const [index, value] of times.entries()) expect(within(1 / 3, value, decode[index])).toBe(true);
  });

  test("the default, 8B on an H100, is within a tenth", () => {
    const profile = costProfiles["8b-h100-tp1"];
    const speeds = [1_024, 8_192, 16_384].map((tokens) => tokens / prefillMs(profile, tokens));
    const times = [1, 32, 128].map((sequences) => decodeMs(profile, sequences, sequences * 1_024));
    expect(speeds.map((speed, index) => within(0.1, speed, [48, 40.8, 36.9][index]))).toEqual([true, true, true]);
    expect(times.map((time, index) => within(0.1, time, [5.9, 8.1, 12.4][index]))).toEqual([true, true, true]);
  });

  test("a prompt costs the same in chunks as whole", () => {
    const profile = costProfiles["8b-h100-tp1"];
    const chunks = prefillMs(profile, 8_192) + prefillMs(profile, 8_192, 8_192);
    expect(chunks).toBeCloseTo(prefillMs(profile, 16_384), 6);
  });

  test("a mixed step is never cheaper than either part", () => {
    const profile = costProfiles["8b-h100-tp1"];
    const decode = stepMs(profile, { prefillMs: 0, decodes: 8, contextTokens: 8_192 });
    const mixed = stepMs(profile, { prefillMs: 100, decodes: 8, contextTokens: 8_192 });
    expect(decode).toBeCloseTo(1 + 1.2 * decodeMs(profile, 8, 8_192), 6);
    expect(mixed).toBeGreaterThan(decode);
    expect(mixed).toBeGreaterThan(120);
  });

  test("61 GB wake in about three seconds, as vLLM's sleep mode was measured", () => {
    expect(transferMs(61e9) / 1_000).toBeCloseTo(2.87, 0);
  });
});

describe("blocks", () => {
  test("equal beginnings have equal hashes, and a changed one changes all that follow", () => {
    const hashesOf = (text: string, salt = ""): readonly number[] => {
      const hasher = new BlockHasher(16, salt);
      for (let start = 0; start < text.length; start += 7) hasher.add(text.slice(start, start + 7));
      return hasher.hashes;
    };
    const text = "0123456789abcdef".repeat(20);
    expect(hashesOf(text)).toHaveLength(5);
    expect(hashesOf(`${text}tail`).slice(0, 5)).toEqual(hashesOf(text));
    expect(hashesOf(`x${text.slice(1)}`).filter((hash) => hashesOf(text).includes(hash))).toEqual([]);
    expect(hashesOf(text, "adapter")[0]).not.toBe(hashesOf(text)[0]);
  });

  test("idle blocks are found again until room is needed, the least recently used first", () => {
    const pool = new BlockPool(4, true);
    const first = pool.allocate(2) ?? [];
    pool.seal(first[0] ?? 0, 11);
    pool.seal(first[1] ?? 0, 12);
    pool.release(first);
    const second = pool.allocate(1) ?? [];
    pool.seal(second[0] ?? 0, 21);
    pool.release(second);
    expect(pool.usage).toBe(0);
    // 11 is used again, so that 12 is now the oldest; one block was never used.
    pool.release(pool.takeCached([11], 9));
    expect(pool.allocate(2)).toHaveLength(2);
    expect([11, 12, 21].map((hash) => pool.has(hash))).toEqual([true, false, true]);
    expect(pool.allocate(3)).toBeNull();
    expect(pool.usage).toBe(0.5);
  });

  test("no sequence of takes and releases loses or invents a block", () => {
    const steps = array(record({ take: nat(5), hash: nat(20), back: boolean() }), { maxLength: 60 });
    assert(
      property(steps, (plan) => {
        const pool = new BlockPool(12, true);
        const held: number[][] = [];
        for (const { take, hash, back } of plan) {
          if (back) pool.release(held.shift() ?? []);
          const cached = pool.takeCached([hash], 1);
          const fresh = pool.allocate(take);
          if (fresh?.[0] !== undefined) pool.seal(fresh[0], hash);
          held.push([...cached, ...(fresh ?? [])]);
          expect(pool.free + new Set(held.flat()).size).toBe(12);
        }
        for (const blocks of held) pool.release(blocks);
        expect(pool.free).toBe(12);
      }),
    );
  });
});

describe("batch", () => {
  const profile = costProfiles["8b-h100-tp1"];
  const limits = { maxNumSeqs: 256, maxNumBatchedTokens: 8_192, blockTokens: 16 };

  function setUp(blocks: number, changed: Partial<typeof limits> = {}) {
    const pool = new BlockPool(blocks, true);
    const batch = new Batch(profile, { ...limits, ...changed }, pool);
    const ended: string[] = [];
    const work = (name: string, prompt: string, outputTokens: number): SequenceWork => ({
      prompt,
      salt: "",
      outputTokens,
      lastReason: "length",
      tokenText: (position) => answerToken(countTokens(name), position).text,
      onEnd: (reason) => void ended.push(`${name}:${reason}`),
    });
    const run = (): { steps: number; ms: number } => {
      const totals = { steps: 0, ms: 0 };
      for (let step = batch.plan(); step !== null; step = batch.plan()) {
        totals.steps += 1;
        totals.ms += step.ms;
        batch.complete(step);
        if (totals.steps > 100_000) throw new Error("the batch does not end");
      }
      return totals;
    };
    return { pool, batch, ended, work, run };
  }

  /** Text of so many tokens that shares nothing with another name's. */
  const prose = (name: string, tokens: number): string =>
    Array.from({ length: tokens }, (_, index) => `${name}${String(index).padStart(3, "0")}`.slice(-4)).join("");

  test("a prompt of 20,000 tokens takes three chunks, and then one step for each further token", () => {
    const { batch, work, run, pool } = setUp(2_000);
    batch.add(work("a", prose("a", 20_000), 5));
    expect(run().steps).toBe(3 + 4);
    expect(batch.counters).toMatchObject({ promptTokens: 20_000, generationTokens: 5, prefixHits: 0 });
    expect(pool.usage).toBe(0);
  });

  test("a decode goes along with another's chunks", () => {
    const { batch, work } = setUp(2_000);
    batch.add(work("a", prose("a", 16), 100));
    const first = batch.plan();
    if (first !== null) batch.complete(first);
    batch.add(work("b", prose("b", 16_000), 1));
    expect(batch.plan()?.parts.map(({ tokens }) => tokens)).toEqual([1, 8_191]);
  });

  test("no more than max_num_seqs run, and they are admitted in order", () => {
    const { batch, work, run, ended } = setUp(2_000, { maxNumSeqs: 2 });
    for (const name of ["a", "b", "c"]) batch.add(work(name, prose(name, 20), 3));
    const step = batch.plan();
    expect([batch.running.length, batch.waiting.length]).toEqual([2, 1]);
    if (step !== null) batch.complete(step);
    run();
    expect(ended).toEqual(["a:length", "b:length", "c:length"]);
  });

  test("a second turn finds the first turn and its answer in the cache", () => {
    const { batch, work, run } = setUp(2_000);
    const first = prose("a", 2_000);
    batch.add(work("a", first, 33));
    run();
    const answer = Array.from({ length: 33 }, (_, index) => answerToken(countTokens("a"), index).text).join("");
    const cold = setUp(2_000);
    const second = `${first}${answer}${prose("b", 100)}`;
    const cached: number[] = [];
    batch.add({ ...work("a", second, 1), onStart: (tokens) => void cached.push(tokens) });
    const warm = run();
    cold.batch.add(cold.work("a", second, 1));
    // The KV of the last token of an answer is never computed: 2,000 + 32 tokens are there, 127 full blocks.
    expect(cached).toEqual([2_032]);
    expect(batch.counters.prefixHits).toBe(2_032);
    expect(warm.ms).toBeLessThan(cold.run().ms);
  });

  test("the same prompt again computes at least its last block", () => {
    const { batch, work, run } = setUp(2_000);
    batch.add(work("a", prose("a", 160), 1));
    run();
    const cached: number[] = [];
    batch.add({ ...work("a", prose("a", 160), 1), onStart: (tokens) => void cached.push(tokens) });
    run();
    expect(cached).toEqual([144]);
  });

  test("another adapter finds nothing, and neither does anyone after eviction", () => {
    const { batch, work, run } = setUp(12);
    batch.add(work("a", prose("a", 160), 1));
    run();
    batch.add({ ...work("a", prose("a", 160), 1), salt: "adapter" });
    run();
    expect(batch.counters.prefixHits).toBe(0);
    batch.add(work("a", prose("a", 160), 1));
    run();
    // Ten of twelve blocks went to the adapter; what is left of the first is its beginning.
    expect(batch.counters.prefixHits).toBeLessThanOrEqual(32);
  });

  test("when blocks run out the youngest is computed anew, and everything still ends", () => {
    const { batch, work, run, pool, ended } = setUp(10);
    for (const name of ["a", "b", "c"]) batch.add(work(name, prose(name, 40), 60));
    run();
    expect(batch.counters.preemptions).toBeGreaterThan(0);
    expect(ended.toSorted()).toEqual(["a:length", "b:length", "c:length"]);
    expect(batch.counters.generationTokens).toBe(180);
    expect(pool.usage).toBe(0);
  });

  test("an aborted sequence gives its blocks back", () => {
    const { batch, work, run, pool, ended } = setUp(100);
    const sequence = batch.add(work("a", prose("a", 40), 60));
    batch.plan();
    batch.abort(sequence);
    expect(run().steps).toBe(0);
    expect(ended).toEqual(["a:abort"]);
    expect(pool.usage).toBe(0);
  });

  test("whatever comes, all blocks come back and each answer has its tokens", () => {
    const requests = array(record({ tokens: integer({ min: 1, max: 90 }), output: nat(40) }), {
      minLength: 1,
      maxLength: 12,
    });
    assert(
      property(requests, (wanted) => {
        const { batch, work, run, pool, ended } = setUp(9);
        for (const [index, { tokens, output }] of wanted.entries()) {
          batch.add(work(String(index), prose(String(index % 3), tokens), output));
        }
        run();
        expect(ended).toHaveLength(wanted.length);
        expect(batch.counters.generationTokens).toBe(wanted.reduce((sum, { output }) => sum + output, 0));
        expect(pool.free).toBe(9);
      }),
      { numRuns: 50 },
    );
  });
});

describe("text", () => {
  const source = { weights: 1, adapter: 0, prompt: "p", choice: 0 };

  test("an answer depends on weights, adapter, prompt and choice, and on nothing else", () => {
    const textOf = (changed: Partial<typeof source>): string =>
      Array.from({ length: 8 }, (_, index) => answerToken(answerSeed({ ...source, ...changed }), index).text).join("");
    expect(textOf({})).toBe(textOf({}));
    const others = [{ weights: 2 }, { adapter: 1 }, { prompt: "q" }, { choice: 1 }].map((changed) => textOf(changed));
    expect(new Set([textOf({}), ...others]).size).toBe(5);
  });

  test("tokens have four characters, and less likely ones less probability", () => {
    for (let position = 0; position < 200; position += 1) {
      const best = answerToken(7, position);
      expect(best.text).toMatch(/^ [a-z]{3}$/);
      expect(best.logprob).toBeLessThan(0);
      expect(answerToken(7, position, 1).logprob).toBeLessThan(best.logprob);
    }
  });

  test("embeddings are unit vectors", () => {
    const vector = embeddingOf(source, 64);
    expect(Math.hypot(...vector)).toBeCloseTo(1, 9);
    expect(embeddingOf({ ...source, weights: 2 }, 64)).not.toEqual(vector);
  });

  test("Latin-1 text survives its tokens", () => {
    const text = array(integer({ min: 1, max: 255 })).map((units) => String.fromCharCode(...units));
    assert(
      property(text, (given) => {
        expect(detokenize(tokenize(given))).toBe(given);
      }),
    );
  });
});

describe("command line", () => {
  const grammar = {
    program: "vllm",
    table: { "--port": "value", "--enable-lora": "switch", "--served-model-name": "values" } as const,
    help: null,
    style: "argparse",
  } as const;

  test("values, switches, lists and underscores", () => {
    const argv = ["model", "--port=1", "--enable_lora", "--served-model-name", "a", "b", "--port", "2"];
    const parsed = parseArguments(argv, grammar);
    const flags = new Flags(parsed, "vllm");
    expect(parsed.positionals).toEqual(["model"]);
    expect(flags.number("--port")).toBe(2);
    expect(flags.has("--enable-lora")).toBe(true);
    expect(flags.all("--served-model-name")).toEqual(["a", "b"]);
  });

  test.each([
    [["--prot", "1"], "vllm: error: unrecognized arguments: --prot"],
    [["--port"], "vllm: error: argument --port: expected one argument"],
  ])("%j is refused as argparse refuses it", (argv, message) => {
    expect(() => parseArguments(argv, grammar)).toThrow(message);
    expect(() => parseArguments(argv, grammar)).toThrow(UsageError);
  });

  test("where the real help is at hand, only its flags exist", () => {
    const strict = { ...grammar, help: new Set(["--port", "--other-flag"]) };
    expect(parseArguments(["--other-flag", "x", "y"], strict).positionals).toEqual(["y"]);
    expect(() => parseArguments(["--enable-lora"], strict)).toThrow("unrecognized arguments: --enable-lora");
  });
});

describe("metrics", () => {
  test("counters, labels and cumulative buckets", () => {
    const times = new Histogram([0.1, 1]);
    times.observe(0.05);
    times.observe(0.5);
    times.observe(5);
    const families = [
      single("counter", "a_total", { labels: { model: 'x"y' }, value: 3 }),
      single("gauge", "left_out", { labels: {}, value: 1 }),
      histogram("t_seconds", times, {}),
    ];
    expect(exposition(families, ["left_out"]).split("\n")).toEqual([
      "# HELP a_total a total",
      "# TYPE a_total counter",
      'a_total{model="x\\"y"} 3',
      "# HELP t_seconds t seconds",
      "# TYPE t_seconds histogram",
      't_seconds_bucket{le="0.1"} 1',
      't_seconds_bucket{le="1"} 2',
      't_seconds_bucket{le="+Inf"} 3',
      "t_seconds_sum 5.55",
      "t_seconds_count 3",
      "",
    ]);
  });
});
