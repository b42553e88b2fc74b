import type { Served } from "./adapter.ts";
import type { EndReason } from "./scheduler.ts";
import { answerToken, naturalLength, tokenCharacters } from "./text.ts";

/** One answer that a request wants. */
export interface AnswerWork {
  readonly served: Served;
  readonly prompt: string;
  /** Null: until the model ends by itself. */
  readonly maxTokens: number | null;
  readonly minTokens: number;
  readonly ignoreEos: boolean;
  readonly stop: readonly string[];
  readonly choice: number;
}

/** An answer on its way. */
export interface Answer {
  readonly seed: number;
  /** Tokens of the whole answer. */
  readonly tokens: number;
  readonly reason: EndReason;
  /** Text of the tokens from `start` to `end`, without a stop string and what follows it. */
  text(start: number, end: number): string;
}

/** Who hears of an answer. */
export interface AnswerListener {
  onStart?(cachedTokens: number): void;
  onToken?(produced: number): void;
  onEnd(reason: EndReason): void;
}

/** What the answer of `seed` will be: all of it is known before it is computed. */
export function planAnswer(
  seed: number,
  work: Pick<AnswerWork, "ignoreEos" | "minTokens" | "stop"> & { maxTokens: number; natural: number | undefined },
): Answer {
  const natural = Math.max(work.natural ?? naturalLength(seed), work.minTokens);
  const untilEnd = work.ignoreEos ? work.maxTokens : Math.min(work.maxTokens, natural);
  const whole = (end: number): string =>
    Array.from({ length: end }, (_, position) => answerToken(seed, position).text).join("");
  const stops = work.stop.length === 0 ? [] : stopPlaces(whole(untilEnd), work.stop);
  const cut = stops.length === 0 ? undefined : stops.reduce((first, place) => (place.at < first.at ? place : first));
  const tokens = cut === undefined ? untilEnd : Math.ceil(cut.end / tokenCharacters);
  const ended = cut !== undefined || (!work.ignoreEos && natural <= work.maxTokens);
  return {
    seed,
    tokens,
    reason: ended ? "stop" : "length",
    text(start, end) {
      const pieces = Array.from({ length: end - start }, (_, index) => answerToken(seed, start + index).text).join("");
      return cut === undefined ? pieces : pieces.slice(0, Math.max(0, cut.at - start * tokenCharacters));
    },
  };
}

function stopPlaces(text: string, stop: readonly string[]): { at: number; end: number }[] {
  return stop.flatMap((word) => {
    const at = word === "" ? -1 : text.indexOf(word);
    return at === -1 ? [] : [{ at, end: at + word.length }];
  });
}
