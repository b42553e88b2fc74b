import { z } from "zod";
import type { PenstockError } from "./errors.ts";
import { modelName } from "./openai.ts";

/*
 * Anthropic's Messages API, as far as Penstock reads it. Objects are loose, as those of OpenAI's API are.
 */

const block = z.looseObject({
  type: z.string(),
  text: z.string().optional(),
  source: z.looseObject({ type: z.string() }).optional(),
});
const blocks = z.union([z.string(), z.array(block)], { error: "must be a string or a list of content blocks" });

/** What a message and the counting of its tokens share. */
const conversation = {
  model: modelName,
  messages: z.array(z.looseObject({ role: z.enum(["user", "assistant", "system"]), content: blocks })).min(1),
  system: blocks.nullish(),
  tools: z.array(z.looseObject({ name: z.string().min(1).max(128) })).nullish(),
  tool_choice: z.looseObject({ type: z.string() }).nullish(),
  thinking: z.looseObject({ type: z.string() }).nullish(),
};

/** Body of `POST /v1/messages`. */
export const messagesRequest = z.looseObject({
  ...conversation,
  max_tokens: z.int().min(1),
  stream: z.boolean().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.int().min(-1).nullish(),
  stop_sequences: z.array(z.string()).max(64).nullish(),
  metadata: z.looseObject({ user_id: z.string().nullish() }).nullish(),
});

/** Body of `POST /v1/messages/count_tokens`. */
export const countTokensRequest = z.looseObject(conversation);

/** Anthropic's error body: also what follows `event: error` in a stream. */
export interface AnthropicErrorBody {
  readonly type: "error";
  readonly error: { readonly type: string; readonly message: string };
}

/** Anthropic's names of errors by HTTP status; https://docs.anthropic.com/en/api/errors. */
const types: Readonly<Record<number, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  405: "invalid_request_error",
  413: "request_too_large",
  429: "rate_limit_error",
  503: "overloaded_error",
  504: "timeout_error",
};

/** An error of the table as Anthropic's clients expect it. The HTTP status stays that of the table. */
export function anthropicErrorBody(error: PenstockError): AnthropicErrorBody {
  return { type: "error", error: { type: types[error.kind.status] ?? "api_error", message: error.message } };
}
