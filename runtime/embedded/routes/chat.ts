import { randomBytes } from "node:crypto";
import type { Context } from "hono";
import type { GbnfJsonSchema } from "node-llama-cpp";
import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import { chatCompletionRequest, type ChatCompletionRequest } from "../../contracts/openai.ts";
import type { Logger } from "../../lib/log.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import type { Engine, Serving } from "../engine.ts";
import type { GenerationJob, ToolWriting } from "../generate.ts";
import { jsonGrammar } from "../grammar.ts";
import { toGrammarSchema } from "../json-schema.ts";
import type { TokenLogprob } from "../logprobs.ts";
import { readSampling, samplingOfChoice } from "../sampling.ts";
import { callSchema, planTools, type ToolCall, type ToolPlan } from "../tool-calls.ts";
import { choiceCount, readRequest, roomForAnswer, stopList } from "./request.ts";
import { respond, type AnswerShape, type Choice, type ChoiceEvent } from "./respond.ts";

/** `POST /v1/chat/completions`. */
export async function chat(
  c: Context<NodeEnv>,
  services: { readonly engine: Engine; readonly log: Logger },
): Promise<Response> {
  const { engine } = services;
  const serving = engine.writing();
  const request = await readRequest(c, chatCompletionRequest, { defaults: engine.requestDefaults, refused: ["echo"] });
  const adapter = engine.adapterOf(request.model);
  const job = await chatJob(request, engine, serving);
  const choices = choiceCount(request.n, 1);
  return await respond(c, services, {
    jobs: Array.from({ length: choices }, (_, choice) => ({
      ...job,
      sampling: samplingOfChoice(job.sampling, choice),
    })),
    choicesPerPrompt: choices,
    adapter,
    stream: request.stream ?? false,
    includeUsage: request.stream_options?.include_usage ?? false,
    shape: chatShape(request),
  });
}

async function chatJob(request: ChatCompletionRequest, engine: Engine, serving: Serving): Promise<GenerationJob> {
  checkModalities(request);
  if ((request.top_logprobs ?? 0) > 0 && request.logprobs !== true) {
    throw new PenstockError("invalid_value", "`top_logprobs` needs `logprobs`.", { param: "top_logprobs" });
  }
  const plan = planTools(request);
  const tools = plan === undefined ? undefined : await toolWriting(plan, serving);
  const grammar = await formatGrammar(request, serving);
  if (tools !== undefined && grammar !== undefined) {
    throw new PenstockError("unsupported", "`response_format` and `tools` cannot both steer the answer.", {
      param: "response_format",
    });
  }
  const pieces = serving.template.render({
    messages: request.messages,
    tools: plan?.tools,
    variables: templateVariables(request),
  });
  const { vocabulary } = serving;
  const start = tools?.forced === true ? vocabulary.continuationTokens(tools.format.open) : [];
  const prompt = [...vocabulary.piecesTokens(pieces), ...start];
  const room = roomForAnswer(engine, prompt.length, "messages");
  const logprobs = request.logprobs === true ? (request.top_logprobs ?? 0) : undefined;
  return {
    prompt,
    maxTokens: Math.min(request.max_completion_tokens ?? request.max_tokens ?? room, room),
    stop: [...stopList(request.stop), ...serving.template.stops],
    sampling: readSampling(request, vocabulary, logprobs),
    grammar,
    tools,
  };
}

/** Further variables for the template, in vLLM's field. */
function templateVariables(request: ChatCompletionRequest): Readonly<Record<string, unknown>> {
  const parsed = z.record(z.string(), z.unknown()).nullish().safeParse(request["chat_template_kwargs"]);
  if (parsed.success) return parsed.data ?? {};
  throw new PenstockError("invalid_value", "`chat_template_kwargs` must be an object.", {
    param: "chat_template_kwargs",
  });
}

function checkModalities(request: ChatCompletionRequest): void {
  const modalities = request["modalities"];
  if (Array.isArray(modalities) && modalities.some((modality) => modality !== "text")) {
    throw new PenstockError("unsupported", "This engine answers with text only.", { param: "modalities" });
  }
}

async function toolWriting(plan: ToolPlan, { llama, template, toolFormat }: Serving): Promise<ToolWriting> {
  if (!template.knowsTools || toolFormat === undefined) {
    throw new PenstockError(
      "unsupported",
      template.knowsTools
        ? "The model's chat template calls tools in a format that this engine does not know."
        : "The model's chat template knows no tools; choose a model that was trained for them.",
      { param: "tools" },
    );
  }
  const grammar = await jsonGrammar(llama, callSchema(plan, toolFormat), toolFormat.close);
  return { format: toolFormat, grammar, forced: plan.forced, parallel: plan.parallel };
}

async function formatGrammar(request: ChatCompletionRequest, { llama }: Serving) {
  const format = request.response_format;
  if (format === undefined || format === null) return undefined;
  if (format.type === "text") return undefined;
  if (format.type === "json_object") return await jsonGrammar(llama, anyObject);
  const param = "response_format.json_schema.schema";
  const schema = toGrammarSchema(format.json_schema.schema ?? anyObject, { param, unsupported: "refuse" });
  return await jsonGrammar(llama, schema);
}

const anyObject: GbnfJsonSchema = { type: "object", additionalProperties: true };

function chatShape(request: ChatCompletionRequest): AnswerShape {
  const head = {
    id: `chatcmpl-${randomBytes(12).toString("hex")}`,
    created: Math.floor(Date.now() / 1000),
    model: request.model,
  };
  const withLogprobs = request.logprobs === true;
  const calls = new Map<number, number>();
  const chunk = (index: number, delta: object, rest: { logprobs?: object; finish_reason?: string } = {}): object => ({
    ...head,
    object: "chat.completion.chunk",
    choices: [{ index, delta, logprobs: rest.logprobs ?? null, finish_reason: rest.finish_reason ?? null }],
  });
  return {
    chunk(index: number, event: ChoiceEvent) {
      if (event.type === "begin") return chunk(index, { role: "assistant", content: "" });
      if (event.type === "end") return chunk(index, {}, { finish_reason: event.reason });
      if (event.type === "text") {
        return chunk(index, { content: event.text }, withLogprobs ? { logprobs: chatLogprobs(event.logprobs) } : {});
      }
      const place = calls.get(index) ?? 0;
      calls.set(index, place + 1);
      return chunk(index, { tool_calls: [{ index: place, ...openAiCall(event.call) }] });
    },
    usageChunk: (usage) => ({ ...head, object: "chat.completion.chunk", choices: [], usage }),
    whole: (choices, usage) => ({
      ...head,
      object: "chat.completion",
      choices: choices.map((choice, index) => wholeChoice(choice, index, withLogprobs)),
      usage,
    }),
  };
}

function wholeChoice(choice: Choice, index: number, withLogprobs: boolean): object {
  const hasCalls = choice.calls.length > 0;
  return {
    index,
    message: {
      role: "assistant",
      content: hasCalls && choice.text === "" ? null : choice.text,
      refusal: null,
      ...(hasCalls ? { tool_calls: choice.calls.map(openAiCall) } : {}),
    },
    logprobs: withLogprobs ? chatLogprobs(choice.logprobs) : null,
    finish_reason: choice.reason,
  };
}

function openAiCall(call: ToolCall): object {
  return { id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } };
}

function chatLogprobs(entries: readonly TokenLogprob[]): object {
  const content = entries.map(({ top, token, logprob, bytes }) => ({ token, logprob, bytes, top_logprobs: top }));
  return { content, refusal: null };
}
