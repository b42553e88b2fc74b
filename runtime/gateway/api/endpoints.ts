import type { z } from "zod";
import { anthropicErrorBody, countTokensRequest, messagesRequest } from "../../contracts/anthropic.ts";
import { speechRequest, transcriptionForm } from "../../contracts/audio.ts";
import type { PenstockError } from "../../contracts/errors.ts";
import { chatCompletionRequest, completionRequest, embeddingRequest } from "../../contracts/openai.ts";
import { rerankRequest, scoreRequest, tokenizeRequest } from "../../contracts/rerank.ts";
import { responsesRequest } from "../../contracts/responses.ts";

/** What an engine is asked to do; a model serves some of these. */
export type Task = "generate" | "embed" | "rerank" | "transcribe" | "speech" | "tokenize";

/** One endpoint that reaches an engine. */
export interface EndpointSpec {
  /** One line for people who read the reference. */
  readonly summary: string;
  /**
   * What the body must be. The model is its field `model`: of a JSON object, or of a multipart form, where it is
   * looked for in front of the file.
   */
  readonly schema: z.ZodType;
  readonly body: "json" | "multipart";
  /** Whether `stream: true` makes the answer a stream of server-sent events. */
  readonly streams: boolean;
  /**
   * Where an answer tells its tokens. `on-request`: a stream does only when `stream_options.include_usage` asks for it.
   * `always`: in whole answers and streams alike. `never`: the answer is no JSON, or costs nothing.
   */
  readonly usage: "on-request" | "always" | "never";
  readonly task: Task;
  /** Whose shape errors have. */
  readonly errors: "openai" | "anthropic";
}

/** The endpoints that reach an engine, and everything that differs between them. */
export const endpoints = {
  "/v1/chat/completions": {
    summary: "Answers a chat; text, images, tools, structured output.",
    schema: chatCompletionRequest,
    body: "json",
    streams: true,
    usage: "on-request",
    task: "generate",
    errors: "openai",
  },
  "/v1/completions": {
    summary: "Continues a text.",
    schema: completionRequest,
    body: "json",
    streams: true,
    usage: "on-request",
    task: "generate",
    errors: "openai",
  },
  "/v1/responses": {
    summary: "Answers with OpenAI's Responses API.",
    schema: responsesRequest,
    body: "json",
    streams: true,
    usage: "always",
    task: "generate",
    errors: "openai",
  },
  "/v1/messages": {
    summary: "Answers with Anthropic's Messages API.",
    schema: messagesRequest,
    body: "json",
    streams: true,
    usage: "always",
    task: "generate",
    errors: "anthropic",
  },
  "/v1/messages/count_tokens": {
    summary: "Counts the tokens of a message of Anthropic's API.",
    schema: countTokensRequest,
    body: "json",
    streams: false,
    usage: "never",
    task: "tokenize",
    errors: "anthropic",
  },
  "/v1/embeddings": {
    summary: "Turns texts into vectors.",
    schema: embeddingRequest,
    body: "json",
    streams: false,
    usage: "always",
    task: "embed",
    errors: "openai",
  },
  "/v1/rerank": {
    summary: "Orders documents by how well they answer a query.",
    schema: rerankRequest,
    body: "json",
    streams: false,
    usage: "always",
    task: "rerank",
    errors: "openai",
  },
  "/v1/score": {
    summary: "Scores pairs of texts.",
    schema: scoreRequest,
    body: "json",
    streams: false,
    usage: "always",
    task: "rerank",
    errors: "openai",
  },
  "/tokenize": {
    summary: "Turns a prompt or a chat into token ids.",
    schema: tokenizeRequest,
    body: "json",
    streams: false,
    usage: "never",
    task: "tokenize",
    errors: "openai",
  },
  "/v1/audio/transcriptions": {
    summary: "Writes down what is said in a sound file. Send `model` before `file`.",
    schema: transcriptionForm,
    body: "multipart",
    streams: true,
    usage: "always",
    task: "transcribe",
    errors: "openai",
  },
  "/v1/audio/translations": {
    summary: "Writes down in English what is said in a sound file. Send `model` before `file`.",
    schema: transcriptionForm,
    body: "multipart",
    streams: true,
    usage: "always",
    task: "transcribe",
    errors: "openai",
  },
  "/v1/audio/speech": {
    summary: "Speaks a text; the answer is sound.",
    schema: speechRequest,
    body: "json",
    streams: false,
    usage: "never",
    task: "speech",
    errors: "openai",
  },
} as const satisfies Record<string, EndpointSpec>;

/** Path of an endpoint that reaches an engine. */
export type EndpointPath = keyof typeof endpoints;

/** All paths of the table, in its order. */
export const endpointPaths = Object.keys(endpoints) as readonly EndpointPath[]; // the keys of a constant table

/** Whether a path is one of the table. */
export function isEndpoint(path: string): path is EndpointPath {
  return Object.hasOwn(endpoints, path);
}

/** The row of a path. */
export function endpointOf(path: EndpointPath): EndpointSpec {
  return endpoints[path];
}

/** An error in the shape that the clients of this path know. Any other path has OpenAI's. */
export function errorBodyOf(path: string, error: PenstockError): object {
  return isEndpoint(path) && endpoints[path].errors === "anthropic" ? anthropicErrorBody(error) : error.toBody();
}
