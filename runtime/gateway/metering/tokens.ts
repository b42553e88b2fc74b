/** What one answer cost, as its engine counted. */
export interface TokenCounts {
  /** All tokens of the prompt, those from the cache included. */
  readonly prompt: number;
  /** Tokens of the prompt that the engine had in its cache. */
  readonly cached: number;
  readonly completion: number;
  /** Length of the sound, where the engine counts that. */
  readonly audioSeconds: number;
}

export const noTokens: TokenCounts = { prompt: 0, cached: 0, completion: 0, audioSeconds: 0 };

/** No request has more; an engine that says so is not believed. */
const maxCount = 2 ** 40;

/**
 * The counts in a `usage` object of OpenAI's chat, completions, embeddings, responses and audio, of Anthropic's
 * messages, and of rerankers, on top of what an earlier event of the same stream said (Anthropic's tell the prompt at
 * the beginning and the answer at the end). Null when it is none of these.
 */
export function readUsage(usage: unknown, before: TokenCounts = noTokens): TokenCounts | null {
  if (!isRecord(usage)) return null;
  const total = count(usage["total_tokens"]);
  const completion = count(usage["completion_tokens"]) ?? count(usage["output_tokens"]);
  const audioSeconds = count(usage["seconds"]);
  const prompt = promptOf(usage) ?? (completion === undefined ? total : undefined);
  if (prompt === undefined && completion === undefined && audioSeconds === undefined) return null;
  const details = usage["prompt_tokens_details"] ?? usage["input_tokens_details"];
  const cached = count(usage["cache_read_input_tokens"]) ?? (isRecord(details) ? count(details["cached_tokens"]) : 0);
  return {
    prompt: prompt ?? before.prompt,
    cached: Math.max(before.cached, Math.min(cached ?? 0, prompt ?? before.prompt)),
    completion: completion ?? before.completion,
    audioSeconds: audioSeconds ?? before.audioSeconds,
  };
}

function promptOf(usage: Readonly<Record<string, unknown>>): number | undefined {
  const prompt = count(usage["prompt_tokens"]) ?? count(usage["input_tokens"]);
  if (prompt === undefined) return undefined;
  // Anthropic counts what came from the cache, or went to it, beside `input_tokens`; OpenAI within.
  return prompt + (count(usage["cache_read_input_tokens"]) ?? 0) + (count(usage["cache_creation_input_tokens"]) ?? 0);
}

function count(value: unknown): number | undefined {
  return typeof value === "number" && value >= 0 && value <= maxCount ? value : undefined;
}

/** Whether a value of parsed JSON is an object with fields. */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
