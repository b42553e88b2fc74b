import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { Context } from "hono";
import { toPenstockError } from "../../contracts/errors.ts";
import type { Usage } from "../../contracts/openai.ts";
import type { Logger } from "../../lib/log.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import type { Engine, Ticket } from "../engine.ts";
import type { FinishReason, GenerationEvent, GenerationJob } from "../generate.ts";
import type { TokenLogprob } from "../logprobs.ts";
import type { ToolCall } from "../tool-calls.ts";
import { clientSignal } from "./request.ts";
import { SseStream } from "./sse-stream.ts";

/** One choice, complete. */
export interface Choice {
  text: string;
  readonly logprobs: TokenLogprob[];
  readonly calls: ToolCall[];
  reason: FinishReason;
}

/** What a choice streams: its begin, and then what the generation brings. */
export type ChoiceEvent =
  { readonly type: "begin" } | Exclude<GenerationEvent, { readonly type: "prefilled" } | { readonly type: "token" }>;

/** How an endpoint writes choices: the one thing in which chat and completions differ. */
export interface AnswerShape {
  /** A streamed chunk for an event of choice `index`; undefined when the event needs none. */
  chunk(index: number, event: ChoiceEvent): object | undefined;
  /** The last chunk, with usage and without choices. */
  usageChunk(usage: Usage): object;
  /** The answer in one piece. */
  whole(choices: readonly Choice[], usage: Usage): object;
}

/** All that a request wants generated. */
export interface GenerationWork {
  /** One per choice. */
  readonly jobs: readonly GenerationJob[];
  /** Choices per prompt: their prompt counts once. */
  readonly choicesPerPrompt: number;
  readonly adapter: string | undefined;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly shape: AnswerShape;
}

interface Tally {
  generated: number;
  cached: number;
}

/** Answers a request with generated text, streamed or whole. */
export async function respond(
  c: Context<NodeEnv>,
  { engine, log }: { readonly engine: Engine; readonly log: Logger },
  work: GenerationWork,
): Promise<Response> {
  const signal = clientSignal(c.env.outgoing);
  if (!work.stream) {
    const choices: Choice[] = work.jobs.map(() => ({ text: "", logprobs: [], calls: [], reason: "stop" }));
    const usage = await engine.admit(signal, (ticket) =>
      runAll(engine, work, { ticket, signal, take: (index, event) => collect(choices[index], event) }),
    );
    return c.json(work.shape.whole(choices, usage));
  }
  const stream = new SseStream(c.env.outgoing);
  try {
    await engine.admit(signal, (ticket) => streamAll(engine, work, { ticket, signal, stream }));
  } catch (thrown) {
    if (!stream.hasBegun) throw thrown;
    const error = toPenstockError(thrown);
    if (error.code === "internal_error") log.error({ err: error.cause }, "a stream failed");
    stream.fail(error);
  }
  return RESPONSE_ALREADY_SENT;
}

async function streamAll(
  engine: Engine,
  work: GenerationWork,
  { ticket, signal, stream }: { readonly ticket: Ticket; readonly signal: AbortSignal; readonly stream: SseStream },
): Promise<void> {
  const extra = work.includeUsage ? { usage: null } : {};
  const take = async (index: number, event: ChoiceEvent): Promise<void> => {
    const chunk = work.shape.chunk(index, event);
    if (chunk !== undefined) await stream.send({ ...chunk, ...extra });
  };
  const usage = await runAll(engine, work, { ticket, signal, take });
  if (work.includeUsage) await stream.send(work.shape.usageChunk(usage));
  await stream.done();
}

interface Sink {
  readonly ticket: Ticket;
  readonly signal: AbortSignal;
  take(index: number, event: ChoiceEvent): void | Promise<void>;
}

/** Runs all jobs side by side. When one fails, the others end, and the first failure is thrown. */
async function runAll(engine: Engine, work: GenerationWork, sink: Sink): Promise<Usage> {
  const failure = new AbortController();
  const signal = AbortSignal.any([sink.signal, failure.signal]);
  const runs = work.jobs.map(async (job, index) => {
    try {
      return await runOne(engine.generate(job, { adapter: work.adapter, signal, ticket: sink.ticket }), index, sink);
    } catch (thrown) {
      failure.abort(thrown);
      throw thrown;
    }
  });
  const settled = await Promise.allSettled(runs);
  if (failure.signal.aborted) throw failure.signal.reason;
  const tallies = settled.map((result) => (result.status === "fulfilled" ? result.value : { generated: 0, cached: 0 }));
  return usageOf(work, tallies);
}

async function runOne(events: AsyncGenerator<GenerationEvent>, index: number, sink: Sink): Promise<Tally> {
  const tally: Tally = { generated: 0, cached: 0 };
  for await (const event of events) {
    if (event.type === "token") {
      tally.generated += 1;
    } else if (event.type === "prefilled") {
      tally.cached = event.cachedTokens;
      await sink.take(index, { type: "begin" });
    } else {
      await sink.take(index, event);
    }
  }
  return tally;
}

function collect(choice: Choice | undefined, event: ChoiceEvent): void {
  if (choice === undefined) throw new Error("an event of no choice");
  switch (event.type) {
    case "begin":
      return;
    case "text":
      choice.text += event.text;
      choice.logprobs.push(...event.logprobs);
      return;
    case "tool_call":
      choice.calls.push(event.call);
      return;
    case "end":
      choice.reason = event.reason;
  }
}

function usageOf({ jobs, choicesPerPrompt }: GenerationWork, tallies: readonly Tally[]): Usage {
  let prompt = 0;
  let cached = 0;
  for (let index = 0; index < jobs.length; index += choicesPerPrompt) {
    prompt += jobs[index]?.prompt.length ?? 0;
    cached += tallies[index]?.cached ?? 0;
  }
  const generated = tallies.reduce((sum, tally) => sum + tally.generated, 0);
  return {
    prompt_tokens: prompt,
    completion_tokens: generated,
    total_tokens: prompt + generated,
    prompt_tokens_details: { cached_tokens: cached },
  };
}
