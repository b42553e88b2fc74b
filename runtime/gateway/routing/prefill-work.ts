/**
 * Length of a prompt at which attention, which grows with the square of it, costs as much as everything else that prefill
 * does. Measured kernels of vLLM have 37k tokens (8B on one H100) to 290k (70B on eight); 64k is right within 2 for most.
 */
const attentionTokens = 64_000;

/**
 * The work of a prefill, in tokens at the beginning of a prompt: later ones look back on more. On an 8B model 100k tokens
 * take 29 times as long as 10k, so that a queue which counts tokens alone is not as short as it looks.
 */
export function prefillWork(uncachedTokens: number, cachedTokens: number): number {
  return uncachedTokens * (1 + (uncachedTokens + 2 * cachedTokens) / attentionTokens);
}
