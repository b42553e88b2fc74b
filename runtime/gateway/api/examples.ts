import type { EndpointPath } from "./endpoints.ts";

const hello = [{ role: "user", content: "Hello!" }];

/** A request that works, for each endpoint: bodies, or fields of a form. */
export const examples = {
  "/v1/chat/completions": { model: "my-model", messages: hello, max_tokens: 100 },
  "/v1/completions": { model: "my-model", prompt: "The sea is", max_tokens: 50 },
  "/v1/responses": { model: "my-model", input: "Hello!", max_output_tokens: 100 },
  "/v1/messages": { model: "my-model", max_tokens: 100, messages: hello },
  "/v1/messages/count_tokens": { model: "my-model", messages: hello },
  "/v1/embeddings": { model: "my-model", input: ["a fox", "a bear"] },
  "/v1/rerank": { model: "my-model", query: "Where do foxes live?", documents: ["In dens.", "The sky is blue."] },
  "/v1/score": { model: "my-model", text_1: "a fox", text_2: ["a wolf", "a car"] },
  "/tokenize": { model: "my-model", prompt: "Hello!" },
  "/v1/audio/transcriptions": { model: "my-model", file: "@speech.wav" },
  "/v1/audio/translations": { model: "my-model", file: "@speech.wav" },
  "/v1/audio/speech": { model: "my-model", input: "Hello!", voice: "alloy" },
} as const satisfies Record<EndpointPath, object>;
