import { z } from "zod";
import type { TokenCounts } from "./tokens.ts";

const usd = z.number().min(0).optional();

/** What a model's work costs, in USD. Left out is free; cached tokens cost what others do unless told otherwise. */
export const modelPrice = z.strictObject({
  perMillionPromptTokens: usd,
  perMillionCachedTokens: usd,
  perMillionCompletionTokens: usd,
  perAudioMinute: usd,
});

export type ModelPrice = Readonly<z.infer<typeof modelPrice>>;

/** Prices by model, or by `model:adapter` where an adapter has its own. */
export type PriceTable = ReadonlyMap<string, ModelPrice>;

/** Cost in USD of what an engine counted. A model without a price costs nothing. */
export function costOf(
  prices: PriceTable,
  { model, adapter }: { readonly model: string; readonly adapter: string | null },
  tokens: TokenCounts,
): number {
  const price = prices.get(`${model}:${adapter ?? ""}`) ?? prices.get(model) ?? {};
  const perPrompt = price.perMillionPromptTokens ?? 0;
  const fresh = tokens.prompt - tokens.cached;
  const perMillion =
    fresh * perPrompt +
    tokens.cached * (price.perMillionCachedTokens ?? perPrompt) +
    tokens.completion * (price.perMillionCompletionTokens ?? 0);
  return perMillion / 1e6 + (tokens.audioSeconds / 60) * (price.perAudioMinute ?? 0);
}
