import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { chunksOf, EngineProcess, sseEvents, type Completion, type ErrorAnswer } from "./engine-process.ts";
import { slowShape, tinyModel, writeModel } from "./tiny-gguf.ts";
import { temporaryFolder } from "../support/folders.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let tiny: string;
let engine: EngineProcess;

beforeAll(async () => {
  folder = await temporaryFolder();
  tiny = await writeModel(join(folder.path, "tiny.gguf"), tinyModel());
  engine = await EngineProcess.start("--model-path", tiny);
});

afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

const long = { model: "tiny", prompt: "hello", max_tokens: 1000, ignore_eos: true, stream: true };

/** Takes every sequence for half a minute. */
const endless = { ...long, n: 60 };

/** A stream that has begun; `leave` is what a client does that goes away. */
async function begun(on: EngineProcess, body: object = long) {
  const client = new AbortController();
  const response = await on.post("/v1/completions", body, client.signal);
  const events = sseEvents(response);
  await events.next();
  return { leave: () => client.abort(), events };
}

describe("batching", () => {
  test("two streams grow side by side", async () => {
    const order: string[] = [];
    const read = async (name: string) => {
      const response = await engine.post("/v1/completions", { ...long, max_tokens: 300 });
      for await (const { data } of sseEvents(response)) if (data.includes('"text":')) order.push(name);
    };
    await Promise.all([read("a"), read("b")]);
    const changes = order.filter((name, index) => index > 0 && name !== order[index - 1]).length;
    expect(changes).toBeGreaterThan(20);
  });

  test("more requests than sequences all end well", async () => {
    const prompts = Array.from({ length: 9 }, (_, index) => `number ${index}`);
    const answers = await Promise.all(
      prompts.map((prompt) => engine.json<Completion>("/v1/completions", { model: "tiny", prompt, max_tokens: 20 })),
    );
    for (const { choices } of answers) expect(choices).toHaveLength(1);
    expect(await engine.stats()).toMatchObject({ requests: { running: 0, waiting: 0 }, slots: { busy: 0, total: 4 } });
  });
});

describe("a client that leaves", () => {
  test("stops its stream within 200 ms", async () => {
    const { tokens: before } = await engine.stats();
    const { leave } = await begun(engine, endless);
    expect((await engine.stats()).requests.running).toBe(1);
    leave();
    expect(await engine.until(({ requests, slots }) => requests.running === 0 && slots.busy === 0)).toBeLessThan(200);
    expect((await engine.stats()).tokens.generated - before.generated).toBeLessThan(20_000);
  });

  test("stops its answer in one piece within 200 ms", async () => {
    const client = new AbortController();
    const gone = engine.post("/v1/completions", { ...endless, stream: false }, client.signal).catch(() => "gone");
    await engine.until(({ slots }) => slots.busy === 4);
    client.abort();
    expect(await gone).toBe("gone");
    expect(await engine.until(({ slots }) => slots.busy === 0)).toBeLessThan(200);
  });

  test("stops a long prefill within 200 ms, and the slot still works", async () => {
    const path = await writeModel(join(folder.path, "slow.gguf"), tinyModel({ shape: slowShape }));
    await using slow = await EngineProcess.start("--model-path", path, "--parallel", "1");
    const client = new AbortController();
    const body = { model: "slow", prompt: "x".repeat(4000), max_tokens: 10 };
    const gone = slow.post("/v1/completions", body, client.signal).catch(() => "gone");
    await slow.until(({ slots }) => slots.busy === 1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    client.abort();
    expect(await gone).toBe("gone");
    expect(await slow.until(({ slots }) => slots.busy === 0)).toBeLessThan(200);
    const { tokens } = await slow.stats();
    expect([tokens.prompt, tokens.generated]).toEqual([0, 0]);
    const answer = await slow.json<Completion>("/v1/completions", { ...body, prompt: "x".repeat(100) });
    // What was evaluated before the client left is in the cache.
    expect(answer.usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(0);
  });
});

describe("the queue", () => {
  test("holds what may wait, refuses the rest with Retry-After, and goes on when a client leaves", async () => {
    const limits = ["--max-concurrent-requests", "1", "--max-queue", "1"];
    await using narrow = await EngineProcess.start("--model-path", tiny, ...limits);
    const first = await begun(narrow, endless);
    const second = narrow.post("/v1/completions", { ...long, max_tokens: 5 });
    await narrow.until(({ requests }) => requests.waiting === 1);
    const third = await narrow.post("/v1/completions", long);
    expect(third.status).toBe(429);
    expect(Number(third.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect(((await third.json()) as ErrorAnswer).error).toMatchObject({ code: "queue_full", type: "rate_limit_error" });
    first.leave();
    expect((await chunksOf(await second)).length).toBeGreaterThan(0);

    // A client that leaves while it waits is forgotten.
    const again = await begun(narrow, endless);
    const client = new AbortController();
    const waiting = narrow.post("/v1/completions", long, client.signal).catch(() => "gone");
    await narrow.until(({ requests }) => requests.waiting === 1);
    client.abort();
    expect(await waiting).toBe("gone");
    await narrow.until(({ requests }) => requests.waiting === 0);
    again.leave();
    await narrow.until(({ requests }) => requests.running === 0);
  });

  test("requests without a sequence count as waiting", async () => {
    const first = await begun(engine, endless);
    const second = begun(engine);
    await engine.until(({ requests }) => requests.running === 1 && requests.waiting === 1);
    first.leave();
    (await second).leave();
    const idle = await engine.until(({ requests }) => requests.running === 0 && requests.waiting === 0);
    expect(idle).toBeLessThan(1000);
  });
});
