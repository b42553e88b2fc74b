import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { Context } from "hono";
import type { NodeEnv } from "../../../runtime/lib/serve.ts";
import type { SimEngine } from "./engine.ts";
import type { EngineError } from "./errors.ts";
import type { Answer, AnswerWork } from "./plan.ts";
import type { EndReason } from "./scheduler.ts";
import { countTokens } from "./text.ts";

/** Token counts as vLLM writes them. */
export interface Usage {
  readonly prompt_tokens: number;
  readonly total_tokens: number;
  readonly completion_tokens: number;
  readonly prompt_tokens_details?: { readonly cached_tokens: number } | null;
}

/** A part of a streamed answer: tokens `start` to `end`. */
export interface Part {
  readonly answer: Answer;
  readonly start: number;
  readonly end: number;
  /** Null unless it is the last part. */
  readonly reason: EndReason | null;
}

/** How an endpoint writes answers. */
export interface AnswerShape {
  /** First event of each choice, if it has one. */
  begin?(index: number): object;
  part(index: number, part: Part): object;
  /** Event with usage alone, at the end of a stream. */
  usage(usage: Usage): object;
  whole(parts: readonly Part[], usage: Usage): object;
}

/** Everything that one request wants, and how. */
export interface AnswerRequest {
  readonly works: readonly AnswerWork[];
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Whether usage tells the cached tokens. */
  readonly tellCached: boolean;
  readonly shape: AnswerShape;
}

interface Progress {
  answer: Answer | null;
  sent: number;
  produced: number;
  cached: number;
}

/** Computes all answers of a request and writes them, as events or in one piece. */
export async function respond(c: Context<NodeEnv>, engine: SimEngine, request: AnswerRequest): Promise<Response> {
  engine.assertServing();
  const { outgoing } = c.env;
  const progress: Progress[] = request.works.map(() => ({ answer: null, sent: 0, produced: 0, cached: 0 }));
  const parts: Part[] = [];
  const aborts: (() => void)[] = [];
  const send = (payload: object): void => {
    if (outgoing.destroyed) return;
    if (!outgoing.headersSent) outgoing.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
    outgoing.write(`data: ${JSON.stringify(payload)}\n\n`);
  };
  const flush = (index: number, reason: EndReason | null): void => {
    const state = progress[index];
    const answer = state?.answer;
    if (state === undefined || answer === undefined || answer === null) return;
    if (state.sent === 0 && request.shape.begin !== undefined) send(request.shape.begin(index));
    send(request.shape.part(index, { answer, start: state.sent, end: state.produced, reason }));
    state.sent = state.produced;
  };
  outgoing.once("close", () => {
    if (!outgoing.writableFinished) for (const abort of aborts) abort();
  });
  const ends = request.works.map(async (work, index) => {
    const { promise, resolve } = Promise.withResolvers<EndReason>();
    const state = progress[index];
    if (state === undefined) return;
    const begun = await engine.begin(work, {
      onStart: (cached) => (state.cached = cached),
      onToken(produced) {
        state.produced = produced;
        const due = produced === 1 || produced - state.sent >= engine.options.streamInterval;
        if (request.stream && due && produced < (state.answer?.tokens ?? 0)) flush(index, null);
      },
      onEnd: resolve,
    });
    state.answer = begun.answer;
    aborts.push(() => begun.abort());
    // The client may have left while the request was on its way to the queue.
    if (outgoing.destroyed) begun.abort();
    const reason = await promise;
    if (request.stream) flush(index, reason);
    parts[index] = { answer: begun.answer, start: 0, end: state.produced, reason };
  });
  await Promise.all(ends);
  const usage = usageOf(request, progress);
  if (!request.stream) return c.json(request.shape.whole(parts, usage));
  if (request.includeUsage) send(request.shape.usage(usage));
  if (!outgoing.destroyed) outgoing.end("data: [DONE]\n\n");
  return RESPONSE_ALREADY_SENT;
}

function usageOf({ works, tellCached }: AnswerRequest, progress: readonly Progress[]): Usage {
  // The choices of one prompt count it once.
  const prompts = works.filter(({ choice }) => choice === 0);
  const prompt = prompts.reduce((sum, work) => sum + countTokens(work.prompt), 0);
  const completion = progress.reduce((sum, { produced }) => sum + produced, 0);
  const cached = progress.reduce((sum, state, index) => sum + (works[index]?.choice === 0 ? state.cached : 0), 0);
  return {
    prompt_tokens: prompt,
    total_tokens: prompt + completion,
    completion_tokens: completion,
    ...(tellCached ? { prompt_tokens_details: { cached_tokens: cached } } : {}),
  };
}

/** vLLM's error body. */
export function vllmErrorBody(error: EngineError): object {
  return { error: { message: error.message, type: error.type, param: error.param, code: error.status } };
}
