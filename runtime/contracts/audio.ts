import { z } from "zod";
import { modelName } from "./openai.ts";

/**
 * Fields of the form of `POST /v1/audio/transcriptions` and `/translations`; the sound itself is the part `file`.
 * All fields of a form are text.
 */
export const transcriptionForm = z.looseObject({
  model: modelName,
  language: z.string().max(64).optional(),
  prompt: z.string().optional(),
  response_format: z.string().max(64).optional(),
  stream: z.enum(["true", "false", "True", "False", "1", "0"]).optional(),
  temperature: z
    .string()
    .regex(/^\d+(\.\d+)?$/, "must be a number")
    .optional(),
});

/** Body of `POST /v1/audio/speech`; the answer is sound. Bounds are OpenAI's. */
export const speechRequest = z.looseObject({
  model: modelName,
  input: z.string().min(1),
  voice: z.union([z.string(), z.looseObject({ id: z.string() })], { error: "must be the name of a voice" }).optional(),
  response_format: z.string().max(64).nullish(),
  stream_format: z.enum(["sse", "audio"]).nullish(),
  speed: z.number().min(0.25).max(4).nullish(),
  instructions: z.string().nullish(),
});
