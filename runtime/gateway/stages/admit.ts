import { z } from "zod";
import { chatCompletionRequest, completionRequest, embeddingRequest } from "../../contracts/openai.ts";
import { parseJson, parseRequest } from "../../contracts/validate.ts";

/** Endpoints that reach an engine, and what their bodies must be. */
export const endpoints = {
  "/v1/chat/completions": chatCompletionRequest,
  "/v1/completions": completionRequest,
  "/v1/embeddings": embeddingRequest,
} as const satisfies Record<string, z.ZodType>;

export type Endpoint = keyof typeof endpoints;

/** What the gateway reads of a body that was checked. */
const readFields = z.looseObject({ model: z.string(), stream: z.boolean().nullish() });

/**
 * Checks a body against its endpoint's schema: fields with a wrong type are refused, unknown fields pass through.
 * Throws `invalid_json`, `missing_field` or `invalid_value` with `param`.
 */
export function admit(endpoint: Endpoint, body: Buffer): { readonly model: string; readonly streams: boolean } {
  const { model, stream } = readFields.parse(parseRequest(endpoints[endpoint], parseJson(body)));
  return { model, streams: stream === true };
}
