import { randomBytes } from "node:crypto";
import type { Context } from "hono";
import { PenstockError } from "../../contracts/errors.ts";
import { completionRequest, type CompletionRequest } from "../../contracts/openai.ts";
import type { Logger } from "../../lib/log.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import type { Engine } from "../engine.ts";
import type { GenerationJob } from "../generate.ts";
import type { TokenLogprob } from "../logprobs.ts";
import { readSampling, samplingOfChoice } from "../sampling.ts";
import { choiceCount, inputList, inputTokens, readRequest, roomForAnswer, stopList } from "./request.ts";
import { respond, type AnswerShape, type ChoiceEvent } from "./respond.ts";

/** OpenAI's default for this endpoint. */
const defaultMaxTokens = 16;
/** What only a chat can ask for. */
const chatFields = ["messages", "response_format", "tools", "tool_choice", "top_logprobs"];

/** `POST /v1/completions`. */
export async function completions(
  c: Context<NodeEnv>,
  services: { readonly engine: Engine; readonly log: Logger },
): Promise<Response> {
  const { engine } = services;
  engine.writing();
  const request = await readRequest(c, completionRequest, { defaults: engine.requestDefaults, refused: chatFields });
  const adapter = engine.adapterOf(request.model);
  if (request.echo === true && request.logprobs !== undefined && request.logprobs !== null) {
    throw new PenstockError("unsupported", "Log probabilities of the prompt (`echo` with `logprobs`) are not kept.", {
      param: "logprobs",
    });
  }
  const prompts = promptJobs(request, engine);
  const choices = choiceCount(request.n, prompts.length);
  return await respond(c, services, {
    jobs: prompts.flatMap((job) =>
      Array.from({ length: choices }, (_, choice) => ({ ...job, sampling: samplingOfChoice(job.sampling, choice) })),
    ),
    choicesPerPrompt: choices,
    adapter,
    stream: request.stream ?? false,
    includeUsage: request.stream_options?.include_usage ?? false,
    shape: completionShape(request, echoedTexts(request, engine, prompts)),
  });
}

function promptJobs(request: CompletionRequest, engine: Engine): GenerationJob[] {
  const { vocabulary } = engine.serving();
  const sampling = readSampling(request, vocabulary, request.logprobs ?? undefined);
  return inputList(request.prompt).map((input) => {
    const prompt = inputTokens(input, vocabulary, "prompt");
    const room = roomForAnswer(engine, prompt.length, "prompt");
    return {
      prompt,
      maxTokens: Math.min(request.max_tokens ?? defaultMaxTokens, room),
      stop: stopList(request.stop),
      sampling,
      grammar: undefined,
      tools: undefined,
    };
  });
}

/** Per prompt, the text that goes in front of its choices. */
function echoedTexts(request: CompletionRequest, engine: Engine, jobs: readonly GenerationJob[]): string[] {
  const { vocabulary } = engine.serving();
  return inputList(request.prompt).map((input, index) => {
    if (request.echo !== true) return "";
    return typeof input === "string" ? input : vocabulary.text(jobs[index]?.prompt ?? []);
  });
}

function completionShape(request: CompletionRequest, echoed: readonly string[]): AnswerShape {
  const head = {
    id: `cmpl-${randomBytes(12).toString("hex")}`,
    object: "text_completion",
    created: Math.floor(Date.now() / 1000),
    model: request.model,
  };
  const withLogprobs = request.logprobs !== undefined && request.logprobs !== null;
  const echoOf = (index: number): string => echoed[Math.floor(index / (request.n ?? 1))] ?? "";
  const offsets = new Map<number, number>();
  const choice = (index: number, text: string, rest: { entries?: readonly TokenLogprob[]; reason?: string }) => {
    const offset = offsets.get(index) ?? 0;
    offsets.set(index, offset + text.length);
    const logprobs = withLogprobs ? completionLogprobs(rest.entries ?? [], offset) : null;
    return { index, text, logprobs, finish_reason: rest.reason ?? null };
  };
  return {
    chunk(index: number, event: ChoiceEvent) {
      if (event.type === "text") return { ...head, choices: [choice(index, event.text, { entries: event.logprobs })] };
      if (event.type === "end") return { ...head, choices: [choice(index, "", { reason: event.reason })] };
      const echo = event.type === "begin" ? echoOf(index) : "";
      return echo === "" ? undefined : { ...head, choices: [choice(index, echo, {})] };
    },
    usageChunk: (usage) => ({ ...head, choices: [], usage }),
    whole: (choices, usage) => ({
      ...head,
      choices: choices.map(({ text, logprobs, reason }, index) =>
        choice(index, echoOf(index) + text, { entries: logprobs, reason }),
      ),
      usage,
    }),
  };
}

function completionLogprobs(entries: readonly TokenLogprob[], offset: number): object {
  let at = offset;
  const starts = entries.map(({ token }) => {
    const start = at;
    at += token.length;
    return start;
  });
  return {
    tokens: entries.map(({ token }) => token),
    token_logprobs: entries.map(({ logprob }) => logprob),
    top_logprobs: entries.map(({ top }) => Object.fromEntries(top.map(({ token, logprob }) => [token, logprob]))),
    text_offset: starts,
  };
}
