import { randomUUID } from "node:crypto";
import type { Context, Hono } from "hono";
import { z } from "zod";
import {
  chatCompletionRequest,
  completionRequest,
  embeddingRequest,
  type ChatMessage,
} from "../../../runtime/contracts/openai.ts";
import { readBody } from "../../../runtime/lib/http.ts";
import type { NodeEnv } from "../../../runtime/lib/serve.ts";
import { respond, type AnswerShape, type Part } from "./answers.ts";
import type { SimEngine } from "./engine.ts";
import { EngineError } from "./errors.ts";
import type { AnswerWork } from "./plan.ts";
import { answerToken, countTokens, detokenize, tokenCharacters } from "./text.ts";

/** What of the OpenAI API a persona turns on by its flags. */
export interface OpenAiOptions {
  /** Whether usage tells cached tokens. */
  readonly tellCached: boolean;
  /** Whether streams end with usage although nobody asked. */
  readonly forceUsage: boolean;
  /** `chat`: completions tell log-probabilities in the shape of chats, as llama-server does. */
  readonly logprobs: "openai" | "chat" | "refused";
  /** `max_tokens` of a request that has none; null is as many as there is room for. */
  readonly defaultTokens: { readonly completion: number | null; readonly chat: number | null };
  /** Which endpoints there are. */
  readonly task: "generate" | "embed" | "any";
}

/** Largest body: a prompt of some millions of tokens. */
const maximumBodyBytes = 64 * 2 ** 20;

/** vLLM's fields beside OpenAI's. */
const extras = z.looseObject({
  ignore_eos: z.boolean().nullish(),
  min_tokens: z.int().min(0).nullish(),
});

/** Adds completions, chat and embeddings to a server. */
export function addOpenAi(app: Hono<NodeEnv>, engine: SimEngine, options: OpenAiOptions): void {
  if (options.task !== "embed") {
    app.post("/v1/completions", (c) => completions(c, engine, options));
    app.post("/v1/chat/completions", (c) => chat(c, engine, options));
  }
  if (options.task !== "generate") app.post("/v1/embeddings", (c) => embeddings(c, engine));
}

/** The JSON body of a request by a schema. Throws vLLM's 400. */
export async function readJson<Schema extends z.ZodType>(
  c: Context<NodeEnv>,
  schema: Schema,
): Promise<z.infer<Schema>> {
  const body = await readBody(c.env.incoming, maximumBodyBytes);
  let json: unknown;
  try {
    json = JSON.parse(body.toString("utf8"));
  } catch {
    throw new EngineError(400, "Invalid JSON body");
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new EngineError(400, z.prettifyError(parsed.error), { param: issue?.path.join(".") ?? "body" });
}

async function completions(c: Context<NodeEnv>, engine: SimEngine, options: OpenAiOptions): Promise<Response> {
  const request = await readJson(c, completionRequest.and(extras));
  const served = engine.find(request.model);
  const prompts = promptTexts(request.prompt);
  const choices = request.n ?? 1;
  const works = prompts.flatMap((prompt) =>
    Array.from({ length: choices }, (_, choice): AnswerWork => {
      return { ...lengths(request, request.max_tokens ?? options.defaultTokens.completion), served, prompt, choice };
    }),
  );
  return await respond(c, engine, {
    works,
    stream: request.stream === true,
    includeUsage: options.forceUsage || request.stream_options?.include_usage === true,
    tellCached: options.tellCached,
    shape: completionShape(request.model, {
      logprobs: logprobsOf(request.logprobs ?? null, options),
      chatLogprobs: options.logprobs === "chat",
      echo: request.echo === true ? prompts.flatMap((prompt) => works.slice(0, choices).map(() => prompt)) : [],
    }),
  });
}

async function chat(c: Context<NodeEnv>, engine: SimEngine, options: OpenAiOptions): Promise<Response> {
  const request = await readJson(c, chatCompletionRequest.and(extras));
  const served = engine.find(request.model);
  const prompt = renderChat(request.messages);
  const maxTokens = request.max_completion_tokens ?? request.max_tokens ?? options.defaultTokens.chat;
  const works = Array.from({ length: request.n ?? 1 }, (_, choice): AnswerWork => {
    return { ...lengths(request, maxTokens), served, prompt, choice };
  });
  return await respond(c, engine, {
    works,
    stream: request.stream === true,
    includeUsage: options.forceUsage || request.stream_options?.include_usage === true,
    tellCached: options.tellCached,
    shape: chatShape(
      request.model,
      logprobsOf(request.logprobs === true ? (request.top_logprobs ?? 0) : null, options),
    ),
  });
}

async function embeddings(c: Context<NodeEnv>, engine: SimEngine): Promise<Response> {
  const request = await readJson(c, embeddingRequest);
  const served = engine.find(request.model);
  engine.assertServing();
  const texts = promptTexts(request.input);
  const vectors = await Promise.all(texts.map((text) => engine.embed(served, text)));
  const tokens = texts.reduce((sum, text) => sum + countTokens(text), 0);
  return c.json({
    id: `embd-${randomUUID()}`,
    object: "list",
    created: now(),
    model: request.model,
    data: vectors.map((vector, index) => ({
      index,
      object: "embedding",
      embedding: request.encoding_format === "base64" ? base64(vector) : vector,
    })),
    usage: { prompt_tokens: tokens, total_tokens: tokens, completion_tokens: 0, prompt_tokens_details: null },
  });
}

function logprobsOf(wanted: number | null, { logprobs }: OpenAiOptions): number | null {
  if (wanted !== null && logprobs === "refused") throw new EngineError(400, "logprobs are not supported");
  return wanted;
}

function base64(vector: readonly number[]): string {
  return Buffer.from(Float32Array.from(vector).buffer).toString("base64");
}

/** Prompts as texts; token ids are turned back into theirs. */
export function promptTexts(prompt: string | readonly string[] | readonly number[] | readonly number[][]): string[] {
  if (typeof prompt === "string") return [prompt];
  const items: readonly (string | number | number[])[] = prompt;
  if (items.every((item) => typeof item === "number")) return [detokenize(items)];
  return items.map((item) => (typeof item === "string" ? item : detokenize(typeof item === "number" ? [item] : item)));
}

/** A chat as one text, so that a longer chat begins with the shorter one. */
export function renderChat(messages: readonly Pick<ChatMessage, "role" | "content" | "tool_calls">[]): string {
  const turns = messages.map(({ role, content, tool_calls: calls }) => {
    const text = typeof content === "string" ? content : (content ?? []).map((part) => JSON.stringify(part)).join("");
    return `<|im_start|>${role}\n${text}${calls === undefined ? "" : JSON.stringify(calls)}<|im_end|>\n`;
  });
  return `${turns.join("")}<|im_start|>assistant\n`;
}

function lengths(
  request: { stop?: string | string[] | null | undefined } & z.infer<typeof extras>,
  maxTokens: number | null,
): Pick<AnswerWork, "maxTokens" | "minTokens" | "ignoreEos" | "stop"> {
  const { stop } = request;
  return {
    maxTokens,
    minTokens: request.min_tokens ?? 0,
    ignoreEos: request.ignore_eos === true,
    stop: stop === null || stop === undefined ? [] : [stop].flat(),
  };
}

function completionShape(
  model: string,
  wanted: { readonly logprobs: number | null; readonly chatLogprobs: boolean; readonly echo: readonly string[] },
): AnswerShape {
  const head = { id: `cmpl-${randomUUID()}`, object: "text_completion", created: now(), model };
  const logprobs = wanted.chatLogprobs ? chatLogprobs : completionLogprobs;
  const choice = (index: number, part: Part): object => ({
    index,
    text: (part.start === 0 ? (wanted.echo[index] ?? "") : "") + part.answer.text(part.start, part.end),
    logprobs: wanted.logprobs === null ? null : logprobs(part, wanted.logprobs),
    finish_reason: part.reason,
    stop_reason: null,
  });
  return {
    part: (index, part) => ({ ...head, choices: [choice(index, part)] }),
    usage: (usage) => ({ ...head, choices: [], usage }),
    whole: (parts, usage) => ({ ...head, choices: parts.map((part, index) => choice(index, part)), usage }),
  };
}

function chatShape(model: string, topLogprobs: number | null): AnswerShape {
  const head = { id: `chatcmpl-${randomUUID()}`, created: now(), model };
  const chunk = { ...head, object: "chat.completion.chunk" };
  const logprobs = (part: Part): object | null => (topLogprobs === null ? null : chatLogprobs(part, topLogprobs));
  return {
    begin: (index) => ({
      ...chunk,
      choices: [{ index, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null }],
    }),
    part: (index, part) => {
      const delta = { content: part.answer.text(part.start, part.end) };
      return { ...chunk, choices: [{ index, delta, logprobs: logprobs(part), finish_reason: part.reason }] };
    },
    usage: (usage) => ({ ...chunk, choices: [], usage }),
    whole: (parts, usage) => ({
      ...head,
      object: "chat.completion",
      choices: parts.map((part, index) => ({
        index,
        message: { role: "assistant", content: part.answer.text(0, part.end), tool_calls: [], refusal: null },
        logprobs: logprobs(part),
        finish_reason: part.reason,
        stop_reason: null,
      })),
      usage,
    }),
  };
}

function completionLogprobs({ answer, start, end }: Part, top: number): object {
  const positions = Array.from({ length: end - start }, (_, index) => start + index);
  const tokens = positions.map((position) => answerToken(answer.seed, position));
  return {
    text_offset: positions.map((position) => position * tokenCharacters),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    tokens: tokens.map(({ text }) => text),
    top_logprobs: positions.map((position) =>
      Object.fromEntries(ranked(answer.seed, position, Math.max(1, top)).map(({ text, logprob }) => [text, logprob])),
    ),
  };
}

function chatLogprobs({ answer, start, end }: Part, top: number): object {
  const entry = ({ text, logprob }: { text: string; logprob: number }): object => {
    return { token: text, logprob, bytes: [...Buffer.from(text)] };
  };
  const content = Array.from({ length: end - start }, (_, index) => ({
    ...entry(answerToken(answer.seed, start + index)),
    top_logprobs: ranked(answer.seed, start + index, top).map((token) => entry(token)),
  }));
  return { content };
}

function ranked(seed: number, position: number, count: number): { text: string; logprob: number }[] {
  return Array.from({ length: count }, (_, rank) => answerToken(seed, position, rank));
}

/** Unix time in seconds. */
export function now(): number {
  return Math.floor(Date.now() / 1_000);
}
