import { randomUUID } from "node:crypto";
import type { Context, Hono } from "hono";
import { z } from "zod";
import type { NodeEnv } from "../../../runtime/lib/serve.ts";
import { respond, type AnswerShape } from "./answers.ts";
import type { SimEngine } from "./engine.ts";
import { EngineError } from "./errors.ts";
import type { AnswerWork } from "./plan.ts";
import { now, promptTexts, readJson, renderChat } from "./openai.ts";
import { countTokens, detokenize, tokenize } from "./text.ts";

const role = z.enum(["system", "developer", "user", "assistant", "tool"]);
const message = z.looseObject({ role, content: z.union([z.string(), z.array(z.looseObject({ type: z.string() }))]) });
const tokenizeBody = z.looseObject({
  model: z.string().optional(),
  prompt: z.string().optional(),
  messages: z.array(message).optional(),
});
const detokenizeBody = z.looseObject({ model: z.string().optional(), tokens: z.array(z.int().min(0)) });
const responsesBody = z.looseObject({
  model: z.string(),
  input: z.union([z.string(), z.array(message)]),
  max_output_tokens: z.int().min(1).nullish(),
});
const messagesBody = z.looseObject({
  model: z.string(),
  messages: z.array(message).min(1),
  max_tokens: z.int().min(1).optional(),
});
const rerankBody = z.looseObject({ model: z.string(), query: z.string(), documents: z.array(z.string()).min(1) });
const scoreBody = z.looseObject({
  model: z.string(),
  text_1: z.union([z.string(), z.array(z.string())]),
  text_2: z.union([z.string(), z.array(z.string())]),
});

/** vLLM's endpoints beside completions, chat and embeddings: small, but well formed. None of them streams. */
export function addExtras(app: Hono<NodeEnv>, engine: SimEngine): void {
  app.post("/tokenize", async (c) => {
    const body = await readJson(c, tokenizeBody);
    if (body.model !== undefined) engine.find(body.model);
    const tokens = tokenize(body.prompt ?? renderChat(body.messages ?? []));
    return c.json({ count: tokens.length, max_model_len: engine.contextTokens, tokens, token_strs: null });
  });
  app.post("/detokenize", async (c) => c.json({ prompt: detokenize((await readJson(c, detokenizeBody)).tokens) }));
  app.post("/v1/responses", (c) => responses(c, engine));
  app.post("/v1/messages", (c) => messages(c, engine));
  app.post("/v1/messages/count_tokens", async (c) => {
    const body = await readJson(c, messagesBody);
    return c.json({ input_tokens: countTokens(renderChat(body.messages)) });
  });
  for (const path of ["/rerank", "/v1/rerank", "/v2/rerank"]) app.post(path, (c) => rerank(c, engine));
  for (const path of ["/score", "/v1/score"]) app.post(path, (c) => score(c, engine));
}

async function responses(c: Context<NodeEnv>, engine: SimEngine): Promise<Response> {
  const body = await readJson(c, responsesBody);
  const turns = typeof body.input === "string" ? [{ role: "user" as const, content: body.input }] : body.input;
  const head = { id: `resp_${randomUUID()}`, object: "response", created_at: now(), model: body.model };
  return await oneAnswer(c, engine, {
    work: workOf(engine, body.model, { prompt: renderChat(turns), maxTokens: body.max_output_tokens ?? null }),
    whole: (text, usage, reason) => ({
      ...head,
      status: reason === "length" ? "incomplete" : "completed",
      incomplete_details: reason === "length" ? { reason: "max_output_tokens" } : null,
      output: [
        {
          id: `msg_${randomUUID()}`,
          type: "message",
          role: "assistant",
          status: "completed",
          content: [{ type: "output_text", text, annotations: [] }],
        },
      ],
      parallel_tool_calls: true,
      tool_choice: "auto",
      tools: [],
      usage: { input_tokens: usage.input, output_tokens: usage.output, total_tokens: usage.input + usage.output },
    }),
  });
}

async function messages(c: Context<NodeEnv>, engine: SimEngine): Promise<Response> {
  const body = await readJson(c, messagesBody);
  return await oneAnswer(c, engine, {
    work: workOf(engine, body.model, { prompt: renderChat(body.messages), maxTokens: body.max_tokens ?? null }),
    whole: (text, usage, reason) => ({
      id: `msg_${randomUUID()}`,
      type: "message",
      role: "assistant",
      model: body.model,
      content: [{ type: "text", text }],
      stop_reason: reason === "length" ? "max_tokens" : "end_turn",
      stop_sequence: null,
      usage: { input_tokens: usage.input, output_tokens: usage.output },
    }),
  });
}

function workOf(
  engine: SimEngine,
  model: string,
  { prompt, maxTokens }: { prompt: string; maxTokens: number | null },
): AnswerWork {
  const served = engine.find(model);
  return { served, prompt, maxTokens, minTokens: 0, ignoreEos: false, stop: [], choice: 0 };
}

interface OneAnswer {
  readonly work: AnswerWork;
  whole(text: string, usage: { input: number; output: number }, reason: string): object;
}

async function oneAnswer(c: Context<NodeEnv>, engine: SimEngine, one: OneAnswer): Promise<Response> {
  const shape: AnswerShape = {
    part: () => ({}),
    usage: () => ({}),
    whole(parts, usage) {
      const [part] = parts;
      if (part === undefined) throw new EngineError(500, "no answer");
      const counts = { input: usage.prompt_tokens, output: usage.completion_tokens };
      return one.whole(part.answer.text(0, part.end), counts, part.reason ?? "stop");
    },
  };
  return await respond(c, engine, { works: [one.work], stream: false, includeUsage: false, tellCached: false, shape });
}

async function rerank(c: Context<NodeEnv>, engine: SimEngine): Promise<Response> {
  const { model, query, documents } = await readJson(c, rerankBody);
  const scores = await similarities(engine, model, { left: [query], right: documents });
  const results = documents
    .map((text, index) => ({ index, document: { text }, relevance_score: scores[index] ?? 0 }))
    .toSorted((a, b) => b.relevance_score - a.relevance_score);
  return c.json({
    id: `rerank-${randomUUID()}`,
    model,
    usage: { total_tokens: totalOf([query, ...documents]) },
    results,
  });
}

async function score(c: Context<NodeEnv>, engine: SimEngine): Promise<Response> {
  const { model, text_1: first, text_2: second } = await readJson(c, scoreBody);
  const [left, right] = [promptTexts(first), promptTexts(second)];
  if (left.length !== 1 && left.length !== right.length)
    throw new EngineError(400, "Input lengths must be either 1:1, 1:N or N:N");
  const scores = await similarities(engine, model, { left, right });
  const data = scores.map((value, index) => ({ index, object: "score", score: value }));
  const tokens = totalOf([...left, ...right]);
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  return c.json({ id: `score-${randomUUID()}`, object: "list", created: now(), model, data, usage });
}

/** How alike the texts are, 0 to 1; one text on the left goes with all on the right. */
async function similarities(
  engine: SimEngine,
  model: string,
  { left, right }: { left: readonly string[]; right: readonly string[] },
): Promise<number[]> {
  const served = engine.find(model);
  engine.assertServing();
  const vectorsOf = (texts: readonly string[]) => Promise.all(texts.map((text) => engine.embed(served, text)));
  const [first, second] = await Promise.all([vectorsOf(left), vectorsOf(right)]);
  return second.map((vector, index) => {
    const other = first[first.length === 1 ? 0 : index] ?? vector;
    return (1 + vector.reduce((sum, value, place) => sum + value * (other[place] ?? 0), 0)) / 2;
  });
}

function totalOf(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + countTokens(text), 0);
}
