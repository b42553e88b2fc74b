import { InsufficientMemoryError, type LlamaContextSequence } from "node-llama-cpp";
import { describe, expect, test } from "vitest";
import { unitVector } from "../../runtime/embedded/embedder.ts";
import { Gate } from "../../runtime/embedded/gate.ts";
import { memoryError } from "../../runtime/embedded/load-model.ts";
import { LogprobQueue } from "../../runtime/embedded/logprobs.ts";
import { nextStep, Slot, worthOf } from "../../runtime/embedded/slots.ts";
import { detectToolFormat, planTools, readToolCall } from "../../runtime/embedded/tool-calls.ts";
import { Totals } from "../../runtime/embedded/totals.ts";
import type { Token, Vocabulary } from "../../runtime/embedded/vocabulary.ts";

const idle = new AbortController().signal;

describe("Gate", () => {
  test("lets in, queues in order, refuses the rest, and nobody overtakes", async () => {
    const gate = new Gate({ concurrent: 1, queue: 2 });
    const order: string[] = [];
    const leave = await gate.enter(idle);
    const second = gate.enter(idle).then((done) => (order.push("second"), done));
    const third = gate.enter(idle).then((done) => (order.push("third"), done));
    await expect(gate.enter(idle)).rejects.toMatchObject({ code: "queue_full", retryAfterSeconds: expect.any(Number) });
    expect([gate.running, gate.waiting]).toEqual([1, 2]);
    leave();
    (await second)();
    (await third)();
    expect(order).toEqual(["second", "third"]);
    expect([gate.running, gate.waiting]).toEqual([0, 0]);
  });

  test("a client that leaves the queue gives its place up", async () => {
    const gate = new Gate({ concurrent: 1, queue: 1 });
    const leave = await gate.enter(idle);
    const client = new AbortController();
    const waiting = gate.enter(client.signal);
    client.abort();
    await expect(waiting).rejects.toMatchObject({ code: "client_closed" });
    expect(gate.waiting).toBe(0);
    leave();
    expect(gate.running).toBe(0);
  });

  test("Retry-After grows with how long requests take", async () => {
    const gate = new Gate({ concurrent: 2, queue: 8 });
    expect(gate.retryAfterSeconds()).toBe(1);
    const leave = await gate.enter(idle);
    await new Promise((resolve) => setTimeout(resolve, 30));
    leave();
    expect(gate.retryAfterSeconds()).toBe(1);
  });

  test("whenIdle waits for the last one, but not longer than told", async () => {
    const gate = new Gate({ concurrent: 1, queue: 1 });
    await gate.whenIdle(1000);
    const leave = await gate.enter(idle);
    setTimeout(leave, 20);
    const began = performance.now();
    await gate.whenIdle(5000);
    expect(performance.now() - began).toBeLessThan(1000);
    await gate.enter(idle);
    await gate.whenIdle(20);
    expect(gate.running).toBe(1);
  });
});

/** A sequence that takes `msPerStep` for each evaluation and remembers its steps. */
function fakeSequence(held: readonly number[], msPerStep = 0) {
  const steps: number[] = [];
  const sequence = {
    nextTokenIndex: held.length,
    needsCheckpoints: false,
    compareContextTokens: (tokens: readonly number[]) => {
      const different = held.findIndex((token, index) => token !== tokens[index]);
      return { firstDifferentIndex: different < 0 ? held.length : different };
    },
    eraseContextTokenRanges: ([range]: { start: number }[]) => {
      sequence.nextTokenIndex = range?.start ?? 0;
      return Promise.resolve();
    },
    evaluateWithoutGeneratingNewTokens: async (tokens: readonly number[]) => {
      steps.push(tokens.length);
      await new Promise((resolve) => setTimeout(resolve, msPerStep));
    },
  };
  return { slot: new Slot(sequence as unknown as LlamaContextSequence), steps, sequence };
}

const tokens = (count: number) => Array.from({ length: count }, (_, index) => index) as Token[];

describe("Slot", () => {
  test("evaluates only what is new, and never the last token", async () => {
    const { slot, steps } = fakeSequence(tokens(10));
    expect(await slot.prefill(tokens(15), idle)).toBe(10);
    expect(steps).toEqual([4]);
  });

  test("a prompt that is known whole is evaluated anew from its last token", async () => {
    const { slot, steps, sequence } = fakeSequence(tokens(10));
    expect(await slot.prefill(tokens(10), idle)).toBe(9);
    expect([steps, sequence.nextTokenIndex]).toEqual([[], 9]);
  });

  test("stops between two steps when the client leaves", async () => {
    const { slot, steps } = fakeSequence([], 40);
    const client = new AbortController();
    setTimeout(() => client.abort(), 60);
    const began = performance.now();
    await expect(slot.prefill(tokens(100_000), client.signal)).rejects.toMatchObject({ code: "client_closed" });
    expect(performance.now() - began).toBeLessThan(250);
    expect(steps.length).toBeLessThan(5);
  });

  test.each([
    [32, 1, 128],
    [128, 1, 512],
    [512, 1, 512],
    [32, 80, 32],
    [32, 800, 3],
    [1, 5000, 1],
  ])("after %i tokens in %i ms the next step has %i", (size, elapsed, next) => {
    expect(nextStep(size, elapsed)).toBe(next);
  });

  test.each([
    [0, 0, 0],
    [500, 500, 500],
    [300, 500, 300],
    [100, 500, 0],
  ])("a prefix of %i in a slot that holds %i is worth %i", (prefix, held, worth) => {
    expect(worthOf(prefix, held)).toBe(worth);
  });
});

describe("LogprobQueue", () => {
  const vocabulary = { rawText: (token: Token) => String.fromCodePoint(Number(token)) } as Vocabulary;
  const sampled = (text: string) => {
    const token = text.codePointAt(0) as Token;
    return { token, piece: text, probabilities: new Map([[token, 0.5]]), topLogprobs: 1 };
  };

  test("tells of a token once its text has left", () => {
    const queue = new LogprobQueue();
    for (const text of ["a", "b", "c"]) queue.add(sampled(text), vocabulary);
    expect(queue.take(0, false)).toEqual([]);
    expect(queue.take(2, false).map(({ token }) => token)).toEqual(["a", "b"]);
    expect(queue.take(1, true)).toMatchObject([{ token: "c", logprob: Math.log(0.5), bytes: [99] }]);
  });

  test("a probability of zero has OpenAI's least value", () => {
    const queue = new LogprobQueue();
    queue.add({ ...sampled("a"), probabilities: new Map() }, vocabulary);
    expect(queue.take(1, true)).toMatchObject([{ logprob: -9999, top: [] }]);
  });
});

describe("tools", () => {
  const tool = (name: string) => ({ type: "function" as const, function: { name } });
  const base = { model: "m", messages: [], tools: [tool("a"), tool("b")] };

  test("the template tells the format", () => {
    expect(detectToolFormat("... <tool_call> ...")?.name).toBe("hermes");
    expect(detectToolFormat("{{ messages }}")).toBeUndefined();
  });

  test.each([
    [undefined, { forced: false, parallel: true }],
    ["auto", { forced: false, parallel: true }],
    ["required", { forced: true, parallel: true }],
    [
      { type: "function", function: { name: "b" } },
      { forced: true, parallel: false, callable: [tool("b")] },
    ],
  ] as const)("tool_choice %j", (choice, plan) => {
    expect(planTools({ ...base, tool_choice: choice })).toMatchObject(plan);
  });

  test("no tool takes part", () => {
    expect(planTools({ ...base, tool_choice: "none" })).toBeUndefined();
    expect(planTools({ model: "m", messages: [] })).toBeUndefined();
  });

  test("a choice without its tool is refused", () => {
    const choice = { type: "function" as const, function: { name: "c" } };
    expect(() => planTools({ ...base, tool_choice: choice })).toThrow("has no function `c`");
    expect(() => planTools({ model: "m", messages: [], tool_choice: "required" })).toThrow(
      "`tool_choice` needs `tools`",
    );
  });

  test("a written call becomes OpenAI's", () => {
    const format = detectToolFormat("<tool_call>");
    if (format === undefined) throw new Error("no format");
    expect(readToolCall('{"name": "f", "arguments": {"a": "</tool_call>', format)).toBeUndefined();
    const call = readToolCall(' {"name": "f", "arguments": {"a": [1]}} </tool_call>', format);
    expect(call).toEqual({ id: expect.stringMatching(/^call_[0-9a-f]{24}$/), name: "f", arguments: '{"a":[1]}' });
  });
});

test("missing memory is told with its remedy, and nothing else is taken for it", () => {
  expect(memoryError(new InsufficientMemoryError(), "4 sequences")?.message).toMatch(
    /not enough memory for 4 sequences.*Lower --n-ctx/,
  );
  expect(memoryError(new Error("other"), "x")).toBeUndefined();
});

test("vectors have unit length", () => {
  expect([...unitVector([3, 4])]).toEqual([expect.closeTo(0.6), expect.closeTo(0.8)]);
  expect([...unitVector([0, 0])]).toEqual([0, 0]);
});

test("speed is that of the last ten seconds", () => {
  const totals = new Totals();
  for (let ms = 0; ms <= 1000; ms += 100) totals.addGenerated(ms);
  expect(totals.tokensPerSecond(1000)).toBe(10);
  expect(totals.tokensPerSecond(60_000)).toBe(0);
  expect(totals.generatedTokens).toBe(11);
});
