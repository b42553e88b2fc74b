import { z } from "zod";

/*
 * Request bodies of the OpenAI API, as far as Penstock reads them. Objects are loose: fields that are not named here
 * pass through to the engine untouched; fields that are named are checked, so that a wrong type is OpenAI's 400.
 */

/** Name of a model, or `base:adapter` for a LoRA adapter on it. */
export const modelName = z.string().min(1).max(256);
const model = modelName;

/** An address: `data:` with the content itself, or `https:` where the operator allows its host. */
const mediaUrl = z.looseObject({ url: z.string() });

/** A part of a message. What an engine makes of an image, a sound or a file is its own affair. */
const contentPart = z.looseObject({
  type: z.string(),
  text: z.string().optional(),
  image_url: z.union([mediaUrl, z.string()], { error: "must be an object with a `url`" }).optional(),
  input_audio: z.looseObject({ data: z.string(), format: z.string() }).optional(),
  file: z.looseObject({ file_data: z.string().optional(), file_id: z.string().optional() }).optional(),
});

const toolCall = z.looseObject({
  id: z.string(),
  type: z.literal("function"),
  function: z.looseObject({ name: z.string(), arguments: z.string() }),
});

/** One message of a chat. `content` is text, a list of parts, or null beside tool calls. */
export const chatMessage = z.looseObject({
  role: z.enum(["system", "developer", "user", "assistant", "tool"]),
  content: z
    .union([z.string(), z.array(contentPart), z.null()], { error: "must be a string, a list of parts, or null" })
    .optional(),
  name: z.string().optional(),
  tool_calls: z.array(toolCall).optional(),
  tool_call_id: z.string().optional(),
});

/** A function that the model may call; `parameters` is JSON Schema. */
export const tool = z.looseObject({
  type: z.literal("function"),
  function: z.looseObject({
    name: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, "must be 1 to 64 letters, digits, _ or -"),
    description: z.string().optional(),
    parameters: z.record(z.string(), z.unknown()).optional(),
  }),
});

const toolChoice = z.union(
  [
    z.enum(["none", "auto", "required"]),
    z.looseObject({ type: z.literal("function"), function: z.looseObject({ name: z.string() }) }),
  ],
  { error: "must be `none`, `auto`, `required`, or a function to call" },
);

/** Text, token ids, or a list of either. */
export const textOrTokens = z.union(
  [z.string(), z.array(z.string()).min(1).max(2048), z.array(z.int()).min(1), z.array(z.array(z.int())).min(1)],
  { error: "must be a string, a list of strings, a list of token ids, or a list of such lists" },
);

const responseFormat = z.discriminatedUnion("type", [
  z.looseObject({ type: z.literal("text") }),
  z.looseObject({ type: z.literal("json_object") }),
  z.looseObject({
    type: z.literal("json_schema"),
    json_schema: z.looseObject({ name: z.string(), schema: z.record(z.string(), z.unknown()).optional() }),
  }),
]);

/** What completions and chat completions share. Bounds are OpenAI's, plus `top_k` and `min_p` as vLLM has them. */
const sampling = {
  model,
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().optional() }).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.int().min(-1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  seed: z.int().nullish(),
  n: z.int().min(1).max(128).nullish(),
  stop: z
    .union([z.string(), z.array(z.string()).max(16)], { error: "must be a string or at most 16 strings" })
    .nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  repetition_penalty: z.number().gt(0).nullish(),
  logit_bias: z.record(z.string(), z.number().min(-100).max(100)).nullish(),
  user: z.string().nullish(),
};

/** Body of `POST /v1/chat/completions`. */
export const chatCompletionRequest = z.looseObject({
  ...sampling,
  messages: z.array(chatMessage).min(1),
  max_tokens: z.int().min(1).nullish(),
  max_completion_tokens: z.int().min(1).nullish(),
  tools: z.array(tool).max(128).nullish(),
  tool_choice: toolChoice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  response_format: responseFormat.nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
});

/** Body of `POST /v1/completions`. A prompt is text, a list of texts, token ids, or a list of token id lists. */
export const completionRequest = z.looseObject({
  ...sampling,
  prompt: textOrTokens,
  max_tokens: z.int().min(0).nullish(),
  echo: z.boolean().nullish(),
  logprobs: z.int().min(0).max(5).nullish(),
});

/** Body of `POST /v1/embeddings`. */
export const embeddingRequest = z.looseObject({
  model,
  input: textOrTokens,
  encoding_format: z.enum(["float", "base64"]).nullish(),
  dimensions: z.int().min(1).nullish(),
  user: z.string().nullish(),
});

export type ChatCompletionRequest = z.infer<typeof chatCompletionRequest>;
export type ChatMessage = z.infer<typeof chatMessage>;
export type ChatTool = z.infer<typeof tool>;
export type CompletionRequest = z.infer<typeof completionRequest>;
export type EmbeddingRequest = z.infer<typeof embeddingRequest>;

/** Token counts of one request, as OpenAI reports them. */
export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details?: { readonly cached_tokens: number };
}
