import {
  ATTR_ERROR_TYPE,
  ATTR_HTTP_REQUEST_METHOD,
  ATTR_HTTP_RESPONSE_STATUS_CODE,
  ATTR_HTTP_ROUTE,
  ATTR_SERVER_ADDRESS,
  ATTR_SERVER_PORT,
} from "@opentelemetry/semantic-conventions";
import type { EndpointPath } from "../api/endpoints.ts";

/**
 * Attributes of our spans. Those of `gen_ai` are as the semantic conventions 1.41 have them; they are not stable, and so
 * not in the main entry of the package.
 */
export const attributes = {
  operation: "gen_ai.operation.name",
  provider: "gen_ai.provider.name",
  requestModel: "gen_ai.request.model",
  responseModel: "gen_ai.response.model",
  requestStream: "gen_ai.request.stream",
  maxTokens: "gen_ai.request.max_tokens",
  inputTokens: "gen_ai.usage.input_tokens",
  outputTokens: "gen_ai.usage.output_tokens",
  cachedTokens: "gen_ai.usage.cache_read.input_tokens",
  /** Seconds. */
  timeToFirstChunk: "gen_ai.response.time_to_first_chunk",
  errorType: ATTR_ERROR_TYPE,
  httpMethod: ATTR_HTTP_REQUEST_METHOD,
  httpRoute: ATTR_HTTP_ROUTE,
  httpStatus: ATTR_HTTP_RESPONSE_STATUS_CODE,
  serverAddress: ATTR_SERVER_ADDRESS,
  serverPort: ATTR_SERVER_PORT,
  requestId: "penstock.request.id",
  tenant: "penstock.tenant",
  adapter: "penstock.adapter",
  replica: "penstock.replica",
  /** `complete`, `client_left`, `cut` or `refused`. */
  outcome: "penstock.outcome",
  coldStartSeconds: "penstock.cold_start_seconds",
  costUsd: "penstock.cost_usd",
} as const;

/** `gen_ai.operation.name` of each endpoint: the conventions' own names where they have one. */
export const operations = {
  "/v1/chat/completions": "chat",
  "/v1/completions": "text_completion",
  "/v1/responses": "chat",
  "/v1/messages": "chat",
  "/v1/messages/count_tokens": "count_tokens",
  "/v1/embeddings": "embeddings",
  "/v1/rerank": "rerank",
  "/v1/score": "score",
  "/tokenize": "tokenize",
  "/v1/audio/transcriptions": "transcription",
  "/v1/audio/translations": "translation",
  "/v1/audio/speech": "speech",
} as const satisfies Record<EndpointPath, string>;
