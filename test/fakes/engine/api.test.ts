import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI from "openai";
import { describe, expect, test } from "vitest";
import { engineSpec } from "../../../runtime/contracts/engine.ts";
import { engineOf } from "../../../runtime/engines/index.ts";
import { readSignals } from "../../../runtime/engines/signals.ts";
import { temporaryFolder } from "../../support/folders.ts";
import { startSimulator, type Simulator } from "./simulator.ts";

/** vLLM's field, which the SDK's types do not know; spread in, it may pass. */
const endless = { ignore_eos: true };
const devMode = { VLLM_SERVER_DEV_MODE: "1" };
const vllm = engineSpec.parse({ kind: "vllm" });
const vllmSignals = engineOf(vllm).metrics(vllm);
const runtimeLora = { VLLM_ALLOW_RUNTIME_LORA_UPDATING: "True" };

function clientOf(simulator: Simulator): OpenAI {
  return new OpenAI({ baseURL: `${simulator.url}/v1`, apiKey: "none", maxRetries: 0 });
}

async function post(simulator: Simulator, path: string, body: object = {}): Promise<{ status: number; text: string }> {
  const response = await fetch(simulator.url + path, { method: "POST", body: JSON.stringify(body) });
  return { status: response.status, text: await response.text() };
}

async function complete(simulator: Simulator, model = "model"): Promise<string> {
  const answer = await clientOf(simulator).completions.create({ model, prompt: "The water runs", max_tokens: 8 });
  return answer.choices[0]?.text ?? "";
}

describe("completions and chat", () => {
  test("a whole answer has text, log-probabilities and usage", async () => {
    await using simulator = await startSimulator();
    const answer = await clientOf(simulator).completions.create({
      model: "model",
      prompt: "Once upon a time",
      max_tokens: 5,
      logprobs: 2,
      n: 2,
    });
    expect(answer.choices).toHaveLength(2);
    const [first, second] = answer.choices;
    expect(first?.text).not.toBe(second?.text);
    expect(first?.finish_reason).toBe("length");
    expect(first?.logprobs?.tokens?.join("")).toBe(first?.text);
    expect(first?.logprobs?.token_logprobs?.every((value) => value < 0)).toBe(true);
    expect(Object.keys(first?.logprobs?.top_logprobs?.[0] ?? {})).toHaveLength(2);
    expect(answer.usage).toMatchObject({ prompt_tokens: 4, completion_tokens: 10, total_tokens: 14 });
  });

  test("a stream says what the whole says, and ends with usage", async () => {
    await using simulator = await startSimulator();
    const request = { model: "model", messages: [{ role: "user" as const, content: "hello" }], max_tokens: 12 };
    const whole = await clientOf(simulator).chat.completions.create(request);
    const stream = await clientOf(simulator).chat.completions.create({
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await collect(stream);
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
    expect(text).toBe(whole.choices[0]?.message.content);
    expect(chunks[0]?.choices[0]?.delta.role).toBe("assistant");
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe("length");
    expect(chunks.at(-1)?.usage).toMatchObject({ completion_tokens: 12 });
    // One for the role, one for each token, one for usage.
    expect(chunks).toHaveLength(14);
  });

  test("a stream interval sends the first token alone and then groups", async () => {
    await using simulator = await startSimulator({ streamInterval: 5 });
    const stream = await clientOf(simulator).completions.create({
      model: "model",
      prompt: "p",
      max_tokens: 12,
      stream: true,
    });
    const lengths = (await collect(stream)).map((chunk) => (chunk.choices[0]?.text.length ?? 0) / 4);
    expect(lengths).toEqual([1, 5, 5, 1]);
  });

  test("the answer ends by itself, unless it may not", async () => {
    await using simulator = await startSimulator({ settings: { answerTokens: 7 } });
    const client = clientOf(simulator);
    const ends = await client.chat.completions.create({ model: "model", messages: [{ role: "user", content: "x" }] });
    expect([ends.choices[0]?.finish_reason, ends.usage?.completion_tokens]).toEqual(["stop", 7]);
    const forced = { model: "model", prompt: "x", max_tokens: 20, ignore_eos: true };
    const goes = await client.completions.create(forced);
    expect([goes.choices[0]?.finish_reason, goes.usage?.completion_tokens]).toEqual(["length", 20]);
  });

  test("a stop word ends the text in front of it, streamed or not", async () => {
    await using simulator = await startSimulator();
    const client = clientOf(simulator);
    const request = { model: "model", prompt: "stop", max_tokens: 12 };
    const full = (await client.completions.create(request)).choices[0]?.text ?? "";
    const stop = full.slice(18, 24);
    const cut = await client.completions.create({ ...request, stop });
    expect(cut.choices[0]).toMatchObject({ text: full.slice(0, full.indexOf(stop)), finish_reason: "stop" });
    const stream = await client.completions.create({ ...request, stop: [stop], stream: true });
    const streamed = (await collect(stream)).map((chunk) => chunk.choices[0]?.text ?? "").join("");
    expect(streamed).toBe(cut.choices[0]?.text);
  });

  test("usage tells cached tokens, and they are there on the second call", async () => {
    await using simulator = await startSimulator();
    const request = { model: "model", prompt: "x".repeat(4_000), max_tokens: 1 };
    const cached = async (): Promise<number | undefined> =>
      (await clientOf(simulator).completions.create(request)).usage?.prompt_tokens_details?.cached_tokens;
    expect(await cached()).toBe(0);
    expect(await cached()).toBe(992);
    expect((await post(simulator, "/reset_prefix_cache")).status).toBe(404);
  });

  test("the same model answers the same in another engine, and another model differently", async () => {
    await using first = await startSimulator();
    await using again = await startSimulator({ model: "/elsewhere/model", argv: ["--served-model-name", "model"] });
    await using other = await startSimulator({ settings: { weightsSeed: "other" } });
    expect(await complete(again)).toBe(await complete(first));
    expect(await complete(other)).not.toBe(await complete(first));
  });

  test.each([
    ["/v1/completions", { model: "nobody", prompt: "x" }, 404],
    ["/v1/completions", { model: "model", prompt: "x", max_tokens: -1 }, 400],
    ["/v1/chat/completions", { model: "model", messages: "x" }, 400],
    ["/v1/completions", { model: "model", prompt: "x".repeat(2_000_000) }, 400],
  ])("%s with a wrong body answers vLLM's error", async (path, body, status) => {
    await using simulator = await startSimulator();
    const answer = await post(simulator, path, body);
    expect(answer.status).toBe(status);
    const type = status === 404 ? "NotFoundError" : "BadRequestError";
    expect(JSON.parse(answer.text)).toMatchObject({ error: { type, code: status } });
  });

  test("a client that leaves frees the engine", async () => {
    await using simulator = await startSimulator({ settings: { step_delay_ms: 5 } });
    const leave = new AbortController();
    const stream = await clientOf(simulator).completions.create(
      { model: "model", prompt: "x", max_tokens: 10_000, stream: true, ...endless },
      { signal: leave.signal },
    );
    for await (const chunk of stream) {
      expect(chunk.choices[0]?.text).toMatch(/^ [a-z]{3}$/);
      leave.abort();
    }
    await expect.poll(() => simulator.engine.batch.running.length).toBe(0);
    expect(simulator.engine.finished.abort).toBe(1);
  });

  test("many requests share the batch, and speed divides its time", async () => {
    await using simulator = await startSimulator({ speed: 20 });
    const one = (): Promise<unknown> =>
      clientOf(simulator).completions.create({ model: "model", prompt: "x", max_tokens: 50 });
    const beganMs = performance.now();
    await Promise.all(Array.from({ length: 40 }, one));
    // 50 steps of 8 ms at speed 20 are 20 ms when shared and 800 ms one after another.
    expect(performance.now() - beganMs).toBeGreaterThan(18);
    expect(simulator.engine.batch.counters.generationTokens).toBe(2_000);
  });
});

describe("further endpoints", () => {
  test("embeddings, base64 and float, are the same vector", async () => {
    await using simulator = await startSimulator({ settings: { dimensions: 8 } });
    const client = clientOf(simulator);
    const float = await client.embeddings.create({ model: "model", input: ["a", "b"], encoding_format: "float" });
    // Without a format the SDK asks for base64 and decodes it.
    const packed = await client.embeddings.create({ model: "model", input: "a" });
    expect(float.data).toHaveLength(2);
    expect(packed.data[0]?.embedding).toHaveLength(8);
    for (const [index, value] of (packed.data[0]?.embedding ?? []).entries()) {
      expect(value).toBeCloseTo(float.data[0]?.embedding[index] ?? 0, 6);
    }
  });

  test("a text that is longer than the context is refused, and does not wait for ever", async () => {
    await using simulator = await startSimulator({ argv: ["--num-gpu-blocks-override", "4"] });
    const answer = await post(simulator, "/v1/embeddings", { model: "model", input: "x".repeat(1_000) });
    expect(answer).toMatchObject({ status: 400, text: expect.stringContaining("maximum context length is 64 tokens") });
  });

  test("tokens go there and back", async () => {
    await using simulator = await startSimulator();
    const { text } = await post(simulator, "/tokenize", { model: "model", prompt: "hello world" });
    const { tokens, count } = JSON.parse(text) as { tokens: number[]; count: number }; // checked below
    expect(count).toBe(3);
    expect((await post(simulator, "/detokenize", { tokens })).text).toBe('{"prompt":"hello world"}');
  });

  test("responses, messages, rerank and score are well formed", async () => {
    await using simulator = await startSimulator();
    const client = clientOf(simulator);
    const response = await client.responses.create({ model: "model", input: "hello", max_output_tokens: 4 });
    expect(response.status).toBe("incomplete");
    expect(response.output_text).toHaveLength(16);
    const messages = [{ role: "user", content: "hello" }];
    const message = await post(simulator, "/v1/messages", { model: "model", messages, max_tokens: 4 });
    expect(JSON.parse(message.text)).toMatchObject({ type: "message", stop_reason: "max_tokens" });
    const count = await post(simulator, "/v1/messages/count_tokens", { model: "model", messages });
    expect(JSON.parse(count.text)).toEqual({ input_tokens: 14 });
    const ranking = await post(simulator, "/v1/rerank", { model: "model", query: "a", documents: ["b", "a", "c"] });
    expect(JSON.parse(ranking.text)).toMatchObject({ results: [{ index: 1, document: { text: "a" } }, {}, {}] });
    const score = await post(simulator, "/v1/score", { model: "model", text_1: "a", text_2: ["a", "b"] });
    expect(JSON.parse(score.text)).toMatchObject({ data: [{ score: expect.closeTo(1, 6) }, { index: 1 }] });
  });

  test("the key guards /v1 alone", async () => {
    await using simulator = await startSimulator({ argv: ["--api-key", "secret"] });
    const statuses = await Promise.all(
      ["/v1/models", "/health", "/metrics", "/version"].map(async (path) => (await fetch(simulator.url + path)).status),
    );
    expect(statuses).toEqual([401, 200, 200, 200]);
    const headers = { authorization: "Bearer secret" };
    expect((await fetch(`${simulator.url}/v1/models`, { headers })).status).toBe(200);
  });
});

describe("metrics", () => {
  test.each([false, true])("the page has every signal that the agent reads (old names: %s)", async (oldMetrics) => {
    await using simulator = await startSimulator({ oldMetrics });
    await complete(simulator);
    await complete(simulator);
    const page = await (await fetch(`${simulator.url}/metrics`)).text();
    const { values, missing } = readSignals(vllmSignals, page);
    expect(missing).toEqual([]);
    expect(values).toMatchObject({
      running: 0,
      waiting: 0,
      kvUsage: 0,
      promptTokensTotal: 8,
      generationTokensTotal: 16,
    });
    expect(page.includes("vllm:gpu_cache_usage_perc")).toBe(oldMetrics);
    expect(page).toContain('vllm:request_success_total{model_name="model",engine="0",finished_reason="length"} 2');
    expect(page).toMatch(/vllm:time_to_first_token_seconds_count\{[^}]*\} 2\n/);
  });

  test("a signal can be missing", async () => {
    await using simulator = await startSimulator({ settings: { omitMetrics: ["vllm:num_requests_waiting"] } });
    const page = await (await fetch(`${simulator.url}/metrics`)).text();
    expect(readSignals(vllmSignals, page).missing).toEqual(["waiting"]);
  });

  test("what runs and waits shows, with its adapter", async () => {
    await using folder = await temporaryFolder();
    const adapter = await writeAdapter(folder.path, "a", 8);
    await using simulator = await startSimulator({
      argv: ["--max-num-seqs", "1", "--enable-lora", "--lora-modules", `a=${adapter}`],
      settings: { step_delay_ms: 10 },
    });
    const requests = ["a", "model"].map((model) =>
      clientOf(simulator).completions.create({ model, prompt: "x", max_tokens: 200, ...endless }),
    );
    await expect.poll(() => simulator.engine.batch.waiting.length).toBe(1);
    const page = await (await fetch(`${simulator.url}/metrics`)).text();
    expect(readSignals(vllmSignals, page).values).toMatchObject({ running: 1, waiting: 1 });
    expect(page).toContain('running_lora_adapters="a"');
    await simulator.close();
    await Promise.allSettled(requests);
  });
});

describe("sleep", () => {
  const asleep = { env: devMode, argv: ["--enable-sleep-mode"] };

  test("the calls exist in developer mode alone, and sleep needs its flag", async () => {
    await using plain = await startSimulator({ argv: ["--enable-sleep-mode"] });
    await using unready = await startSimulator({ env: devMode });
    expect((await post(plain, "/sleep?level=1")).status).toBe(404);
    expect((await post(unready, "/sleep?level=1")).status).toBe(500);
  });

  test("level 1 comes back as it was, with less memory in between", async () => {
    await using simulator = await startSimulator(asleep);
    const before = await complete(simulator);
    const awakeBytes = simulator.engine.gpuMemoryBytes;
    expect((await post(simulator, "/sleep?level=1")).status).toBe(200);
    expect(await (await fetch(`${simulator.url}/is_sleeping`)).json()).toEqual({ is_sleeping: true });
    const page = await (await fetch(`${simulator.url}/metrics`)).text();
    expect(page).toMatch(/engine_sleep_state\{[^}]*sleep_state="weights_offloaded"\} 1/);
    expect(simulator.engine.gpuMemoryBytes).toBeLessThan(awakeBytes / 10);
    expect((await post(simulator, "/wake_up")).status).toBe(200);
    expect(await complete(simulator)).toBe(before);
  });

  test("level 2 comes back whole in the right order alone", async () => {
    await using simulator = await startSimulator(asleep);
    const before = await complete(simulator);
    const call = async (...paths: string[]): Promise<number[]> => {
      const statuses: number[] = [];
      for (const path of paths) statuses.push((await post(simulator, path, { method: "reload_weights" })).status);
      return statuses;
    };
    await call("/sleep?level=2", "/wake_up");
    const wrong = await complete(simulator);
    expect(wrong).not.toBe(before);
    expect(await call("/sleep?level=2", "/collective_rpc", "/wake_up")).toEqual([200, 500, 200]);
    expect(await complete(simulator)).toBe(wrong);
    const order = ["/wake_up?tags=weights", "/collective_rpc", "/wake_up?tags=kv_cache", "/reset_prefix_cache"];
    expect(await call("/sleep?level=2", ...order)).toEqual([200, 200, 200, 200, 200]);
    expect(await complete(simulator)).toBe(before);
  });

  test("a request to a sleeping engine fails and kills it", async () => {
    await using simulator = await startSimulator(asleep);
    await post(simulator, "/sleep?level=1");
    await expect(complete(simulator)).rejects.toThrow("EngineCore encountered an issue");
    expect((await fetch(`${simulator.url}/health`)).status).toBe(503);
    expect(simulator.engine.state).toBe("dead");
  });

  test("sleep aborts what runs", async () => {
    await using simulator = await startSimulator({ ...asleep, settings: { step_delay_ms: 5 } });
    const request = { model: "model", prompt: "x", max_tokens: 5_000, ...endless };
    const running = clientOf(simulator).completions.create(request);
    await expect.poll(() => simulator.engine.batch.counters.generationTokens).toBeGreaterThan(2);
    await post(simulator, "/sleep?level=1");
    expect((await running).choices[0]?.finish_reason).toBe("abort");
  });

  test.each([
    ["refuse_sleep", ["/sleep?level=1"], [500]],
    ["wake_fails", ["/sleep?level=1", "/wake_up"], [200, 500]],
  ] as const)("%s", async (fault, paths, statuses) => {
    await using simulator = await startSimulator({ ...asleep, settings: { [fault]: true } });
    const seen: number[] = [];
    for (const path of paths) seen.push((await post(simulator, path)).status);
    expect(seen).toEqual(statuses);
  });

  test("corrupt_after_wake and lora_lost_after_wake answer without an error, and wrongly", async () => {
    await using folder = await temporaryFolder();
    const adapter = await writeAdapter(folder.path, "a", 8);
    const argv = [...asleep.argv, "--enable-lora", "--lora-modules", JSON.stringify({ name: "a", path: adapter })];
    const answers = async (settings: { corrupt_after_wake?: true; lora_lost_after_wake?: true }): Promise<string[]> => {
      await using simulator = await startSimulator({ env: devMode, argv, settings });
      await post(simulator, "/sleep?level=1");
      await post(simulator, "/wake_up");
      return [await complete(simulator), await complete(simulator, "a")];
    };
    const [base, adapted] = await answers({});
    expect(base).not.toBe(adapted);
    expect(await answers({ lora_lost_after_wake: true })).toEqual([base, base]);
    const [corrupt, corruptAdapted] = await answers({ corrupt_after_wake: true });
    expect(corrupt).not.toBe(base);
    expect(corruptAdapted).not.toBe(adapted);
  });
});

describe("adapters", () => {
  const argv = ["--enable-lora", "--max-lora-rank", "16"];

  test("an adapter is loaded, listed with its parent, used and unloaded", async () => {
    await using folder = await temporaryFolder();
    const path = await writeAdapter(folder.path, "a", 16);
    await using simulator = await startSimulator({ argv, env: runtimeLora });
    const loaded = await post(simulator, "/v1/load_lora_adapter", { lora_name: "model:a", lora_path: path });
    expect(loaded).toEqual({ status: 200, text: "Success: LoRA adapter 'model:a' added successfully." });
    const models = await collect(clientOf(simulator).models.list());
    expect(models).toMatchObject([{ id: "model" }, { id: "model:a", parent: "model", root: path }]);
    expect(await complete(simulator, "model:a")).not.toBe(await complete(simulator));
    expect((await post(simulator, "/v1/unload_lora_adapter", { lora_name: "model:a" })).status).toBe(200);
    await expect(complete(simulator, "model:a")).rejects.toMatchObject({ status: 404 });
  });

  test("what vLLM refuses is refused", async () => {
    await using folder = await temporaryFolder();
    const [good, steep] = [await writeAdapter(folder.path, "a", 8), await writeAdapter(folder.path, "b", 64)];
    await using simulator = await startSimulator({ argv, env: runtimeLora });
    const load = (lora_name: string, lora_path: string): Promise<{ status: number; text: string }> =>
      post(simulator, "/v1/load_lora_adapter", { lora_name, lora_path });
    expect((await load("a", good)).status).toBe(200);
    const twice = await load("a", good);
    expect([twice.status, twice.text]).toEqual([400, expect.stringContaining("has already been loaded")]);
    expect(await load("b", steep)).toMatchObject({ status: 400, text: expect.stringContaining("max_lora_rank 16") });
    expect(await load("c", join(folder.path, "nothing"))).toMatchObject({ status: 404 });
    expect(await post(simulator, "/v1/unload_lora_adapter", { lora_name: "z" })).toMatchObject({ status: 404 });
  });

  test("without the environment's leave there is no such call", async () => {
    await using simulator = await startSimulator({ argv });
    expect((await post(simulator, "/v1/load_lora_adapter", { lora_name: "a", lora_path: "/a" })).status).toBe(404);
  });
});

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function writeAdapter(folder: string, name: string, r: number): Promise<string> {
  const path = join(folder, name);
  await mkdir(path);
  await writeFile(join(path, "adapter_config.json"), JSON.stringify({ r, lora_alpha: 16 }));
  await writeFile(join(path, "adapter_model.safetensors"), name);
  return path;
}
