import OpenAI, { AuthenticationError, BadRequestError, NotFoundError } from "openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startPenstock, type RunningStart } from "../support/penstock.ts";

// OpenAI's own client against `npm start`: real processes, real sockets, the demo model.
let penstock: RunningStart;
const model = "penstock-demo";
const hello = [{ role: "user", content: "Hello!" }] as const;

beforeAll(async () => {
  penstock = await startPenstock();
});
afterAll(async () => {
  await penstock[Symbol.asyncDispose]();
});

test("chat", async () => {
  const answer = await penstock.client.chat.completions.create({ model, messages: [...hello], max_tokens: 20 });
  expect(answer.object).toBe("chat.completion");
  expect(answer.choices[0]?.message.role).toBe("assistant");
  expect(answer.choices[0]?.message.content).toMatch(/\w/);
  expect(answer.usage?.total_tokens).toBe((answer.usage?.prompt_tokens ?? 0) + (answer.usage?.completion_tokens ?? 0));
});

test("streamed chat says the same as chat, with usage at the end", async () => {
  const request = { model, messages: [...hello], temperature: 0, max_tokens: 24 };
  const whole = await penstock.client.chat.completions.create(request);
  const stream = await penstock.client.chat.completions.create({
    ...request,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let chunks = 0;
  let usage: OpenAI.CompletionUsage | null | undefined;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    chunks += 1;
    usage = chunk.usage ?? usage;
  }
  expect(text).toBe(whole.choices[0]?.message.content);
  expect(chunks).toBeGreaterThan(3);
  expect(usage?.completion_tokens).toBe(whole.usage?.completion_tokens);
});

test("completions", async () => {
  const answer = await penstock.client.completions.create({ model, prompt: "Once upon a time", max_tokens: 12 });
  expect(answer.choices[0]?.text).toMatch(/\w/);
  expect(answer.choices[0]?.finish_reason).toMatch(/^(length|stop)$/);
});

test("embeddings", async () => {
  const { data, usage } = await penstock.client.embeddings.create({ model, input: ["a fox", "a bear"] });
  expect(data).toHaveLength(2);
  const length = Math.hypot(...(data[0]?.embedding ?? []));
  expect(length).toBeCloseTo(1, 3);
  expect(usage.prompt_tokens).toBeGreaterThan(1);
});

test("models", async () => {
  const ids: string[] = [];
  for await (const one of penstock.client.models.list()) ids.push(one.id);
  expect(ids).toEqual([model]);
  expect((await penstock.client.models.retrieve(model)).id).toBe(model);
});

test("a forced tool call has the function's name and arguments by its schema", async () => {
  const answer = await penstock.client.chat.completions.create({
    model,
    messages: [{ role: "user", content: "What is the weather in Oslo?" }],
    tools: [
      {
        type: "function",
        function: {
          name: "get_weather",
          parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
        },
      },
    ],
    tool_choice: "required",
    temperature: 0,
    max_tokens: 100,
  });
  const call = answer.choices[0]?.message.tool_calls?.[0];
  expect(call?.type === "function" && call.function.name).toBe("get_weather");
  expect(answer.choices[0]?.finish_reason).toBe("tool_calls");
});

test.each([
  { what: "a wrong key", ask: () => otherKey().models.list(), kind: AuthenticationError, code: "invalid_api_key" },
  {
    what: "an unknown model",
    ask: () => penstock.client.chat.completions.create({ model: "gpt-9", messages: [...hello] }),
    kind: NotFoundError,
    code: "model_not_found",
  },
  {
    what: "a prompt longer than the context",
    ask: () => penstock.client.completions.create({ model, prompt: "word ".repeat(3_000) }),
    kind: BadRequestError,
    code: "context_length_exceeded",
  },
  {
    what: "a value out of range",
    ask: () => penstock.client.chat.completions.create({ model, messages: [...hello], temperature: 9 }),
    kind: BadRequestError,
    code: "invalid_value",
  },
])("$what is the client's own error class", async ({ ask, kind, code }) => {
  const error: unknown = await Promise.resolve(ask()).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(kind);
  expect(error).toMatchObject({ code });
});

function otherKey(): OpenAI {
  return new OpenAI({ baseURL: `${penstock.url}/v1`, apiKey: "not-the-key", maxRetries: 0 });
}

test("a client that leaves in the middle of a stream is noticed, and the next request is served", async () => {
  const leaving = new AbortController();
  const stream = await penstock.client.chat.completions.create(
    // One token always wins, so that only leaving ends the stream early.
    { model, messages: [...hello], stream: true, max_tokens: 400, logit_bias: { "300": 100 } },
    { signal: leaving.signal },
  );
  for await (const _ of stream) break;
  leaving.abort();
  await expect.poll(() => metric('model="penstock-demo",status="client_left"')).toBeGreaterThan(0);
  const answer = await penstock.client.chat.completions.create({ model, messages: [...hello], max_tokens: 4 });
  expect(answer.choices).toHaveLength(1);
});

async function metric(labels: string): Promise<number> {
  const response = await fetch(`${penstock.url}/metrics`, { headers: { authorization: `Bearer ${penstock.key}` } });
  const line = (await response.text()).split("\n").find((text) => text.includes(labels));
  return Number(line?.split(" ").at(-1) ?? 0);
}

test("the curl line of the banner works when it is pasted", async () => {
  const { execFile } = await import("node:child_process");
  const { promisify } = await import("node:util");
  const line = /^ {2}(curl .*)$/m.exec(penstock.banner)?.[1] ?? "";
  const { stdout } = await promisify(execFile)("bash", ["-c", line]);
  expect(stdout).toContain('"chat.completion.chunk"');
  expect(stdout.trimEnd().endsWith("data: [DONE]")).toBe(true);
});
