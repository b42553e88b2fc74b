import { z } from "zod";
import { modelName } from "./openai.ts";

/** Something of a conversation: a message, a tool call, its result, reasoning. Engines know more kinds than are named. */
const inputItem = z.looseObject({
  type: z.string().optional(),
  role: z.enum(["system", "developer", "user", "assistant"]).optional(),
  content: z
    .union([z.string(), z.array(z.looseObject({ type: z.string() })), z.null()], {
      error: "must be a string or a list of parts",
    })
    .optional(),
});

/** Body of `POST /v1/responses`, OpenAI's successor of chat completions. Bounds are OpenAI's. */
export const responsesRequest = z.looseObject({
  model: modelName,
  input: z.union([z.string(), z.array(inputItem)], { error: "must be a string or a list of items" }),
  instructions: z.string().nullish(),
  stream: z.boolean().nullish(),
  max_output_tokens: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  tools: z.array(z.looseObject({ type: z.string() })).nullish(),
  tool_choice: z
    .union([z.string(), z.looseObject({ type: z.string() })], { error: "must be a string or a tool to call" })
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  text: z.looseObject({ format: z.looseObject({ type: z.string() }).optional() }).nullish(),
  reasoning: z.looseObject({ effort: z.string().nullish() }).nullish(),
  previous_response_id: z.string().nullish(),
  store: z.boolean().nullish(),
  background: z.boolean().nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
  user: z.string().nullish(),
});
