import type { LlamaEmbeddingContext } from "node-llama-cpp";
import { PenstockError } from "../contracts/errors.ts";
import type { LoadedModel } from "./load-model.ts";
import { memoryError } from "./load-model.ts";
import { throwIfClosed } from "./slots.ts";
import type { Token } from "./vocabulary.ts";

/** One embedded text. */
export interface Embedded {
  /** Unit length. */
  readonly vector: Float32Array;
  readonly tokens: number;
}

/** Makes embeddings with a context of their own, which is made on first use. */
export class Embedder {
  readonly #loaded: LoadedModel;
  #context: Promise<LlamaEmbeddingContext> | undefined;

  constructor(loaded: LoadedModel) {
    this.#loaded = loaded;
  }

  /** Length of a vector before `dimensions` shortens it. */
  get size(): number {
    return this.#loaded.model.embeddingVectorSize;
  }

  /** Embeds each of `inputs`, in order. Throws `context_length_exceeded` before any work is done. */
  async embed(
    inputs: readonly (readonly Token[])[],
    dimensions: number | undefined,
    signal: AbortSignal,
  ): Promise<Embedded[]> {
    const context = await this.#open();
    const lengths = inputs.map((tokens, index) => this.#checkedLength(context, tokens, index));
    const results: Embedded[] = [];
    for (const [index, tokens] of inputs.entries()) {
      throwIfClosed(signal);
      const { vector } = await context.getEmbeddingFor([...tokens]);
      results.push({ vector: unitVector(vector.slice(0, dimensions)), tokens: lengths[index] ?? tokens.length });
    }
    return results;
  }

  #checkedLength(context: LlamaEmbeddingContext, tokens: readonly Token[], index: number): number {
    const length = context.calculateInputLength([...tokens]);
    const most = this.#loaded.contextTokens - 1;
    if (length <= most) return length;
    throw new PenstockError(
      "context_length_exceeded",
      `Input ${index} has ${length} tokens; this model embeds at most ${most}.`,
      { param: "input" },
    );
  }

  async #open(): Promise<LlamaEmbeddingContext> {
    const { model, contextTokens, threads } = this.#loaded;
    this.#context ??= model.createEmbeddingContext({
      contextSize: contextTokens,
      // A model that looks both ways must see an input in one batch; for others that would only cost memory.
      ...(this.#loaded.looksBothWays ? { batchSize: contextTokens } : {}),
      threads,
    });
    try {
      return await this.#context;
    } catch (cause) {
      this.#context = undefined;
      throw memoryError(cause, "the embedding context") ?? cause;
    }
  }
}

/** `vector` at unit length; one of zeros stays as it is. */
export function unitVector(vector: readonly number[]): Float32Array {
  const length = Math.hypot(...vector);
  return Float32Array.from(vector, (value) => (length === 0 ? 0 : value / length));
}
