import { z } from "zod";
import { modelName } from "./openai.ts";

/** A text, or what a model of images and text takes as one. */
const document = z.union([z.string(), z.looseObject({})], { error: "must be a string or an object" });

/** Body of `POST /v1/rerank`, which Cohere, Jina and vLLM share. */
export const rerankRequest = z.looseObject({
  model: modelName,
  query: document,
  documents: z.union([z.array(document).min(1).max(10_000), z.looseObject({})], { error: "must be a list of texts" }),
  top_n: z.int().min(0).nullish(),
  return_documents: z.boolean().nullish(),
});

const side = z.union([z.string(), z.array(document).min(1).max(10_000), z.looseObject({})], {
  error: "must be a string or a list of them",
});

/** Body of `POST /v1/score`: vLLM's names, old (`text_1`) and new (`queries`). Which pair it is, the engine checks. */
export const scoreRequest = z.looseObject({
  model: modelName,
  text_1: side.optional(),
  text_2: side.optional(),
  queries: side.optional(),
  documents: side.optional(),
});

/** Body of `POST /tokenize`: a prompt, or the messages of a chat. */
export const tokenizeRequest = z.looseObject({
  model: modelName,
  prompt: z.string().optional(),
  messages: z.array(z.looseObject({ role: z.string() })).optional(),
  add_special_tokens: z.boolean().nullish(),
  return_token_strs: z.boolean().nullish(),
});
