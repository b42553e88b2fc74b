import type { Context } from "hono";
import { PenstockError } from "../../contracts/errors.ts";
import { embeddingRequest } from "../../contracts/openai.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import type { Engine } from "../engine.ts";
import { clientSignal, inputList, inputTokens, readRequest } from "./request.ts";

/** OpenAI's limit. */
const maxInputs = 2048;

/** `POST /v1/embeddings`. `dimensions` keeps the first ones and brings the vector back to unit length. */
export async function embeddings(c: Context<NodeEnv>, engine: Engine): Promise<Response> {
  const { vocabulary, embedder } = engine.serving();
  const request = await readRequest(c, embeddingRequest, { defaults: engine.requestDefaults });
  if (engine.adapterOf(request.model) !== undefined) {
    throw new PenstockError("unsupported", "Embeddings come from the base model, not from its adapters.", {
      param: "model",
    });
  }
  const dimensions = request.dimensions ?? undefined;
  if (dimensions !== undefined && dimensions > embedder.size) {
    throw new PenstockError("invalid_value", `\`dimensions\` must be at most ${embedder.size}.`, {
      param: "dimensions",
    });
  }
  const list = inputList(request.input);
  if (list.length === 0 || list.length > maxInputs) {
    throw new PenstockError("invalid_value", `\`input\` must have 1 to ${maxInputs} members.`, { param: "input" });
  }
  const inputs = list.map((input) => inputTokens(input, vocabulary, "input"));
  const signal = clientSignal(c.env.outgoing);
  const results = await engine.admit(signal, (ticket) => {
    ticket.computes = true;
    return embedder.embed(inputs, dimensions, signal);
  });
  const tokens = results.reduce((sum, result) => sum + result.tokens, 0);
  engine.metrics.promptTokens.inc(tokens);
  engine.totals.addPrompt(tokens, 0);
  const encode = request.encoding_format === "base64" ? toBase64 : (vector: Float32Array) => [...vector];
  return c.json({
    object: "list",
    model: request.model,
    data: results.map(({ vector }, index) => ({ object: "embedding", index, embedding: encode(vector) })),
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  });
}

/** Little-endian 32-bit floats, as OpenAI's clients read them. */
function toBase64(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, index) => bytes.writeFloatLE(value, index * 4));
  return bytes.toString("base64");
}
