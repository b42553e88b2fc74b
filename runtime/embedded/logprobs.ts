import type { Token, Vocabulary } from "./vocabulary.ts";

/** The log probability of a token; `bytes` are those of its text, null where that is only part of a character. */
export interface Logprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[] | null;
}

/** A generated token and its most probable alternatives. */
export interface TokenLogprob extends Logprob {
  readonly top: readonly Logprob[];
}

/** JSON has no -Infinity; OpenAI writes this instead. */
const leastLogprob = -9999;

interface Sampled {
  readonly token: Token;
  /** The text that the token completed. */
  readonly piece: string;
  /** After all sampling settings, most probable first. */
  readonly probabilities: ReadonlyMap<Token, number>;
  readonly topLogprobs: number;
}

/** Log probabilities of tokens whose text has not left yet, so that none is told of text that a stop sequence drops. */
export class LogprobQueue {
  readonly #waiting: { readonly entry: TokenLogprob; readonly length: number }[] = [];
  #unclaimed = 0;

  add({ token, piece, probabilities, topLogprobs }: Sampled, vocabulary: Vocabulary): void {
    const top = [...probabilities].slice(0, topLogprobs);
    const entry = {
      ...logprobOf(vocabulary.rawText(token), probabilities.get(token)),
      top: top.map(([other, probability]) => logprobOf(vocabulary.rawText(other), probability)),
    };
    this.#waiting.push({ entry, length: piece.length });
  }

  /** The entries that `characters` more of text cover; all that are left when it is the last text. */
  take(characters: number, isLast: boolean): TokenLogprob[] {
    this.#unclaimed += characters;
    const taken: TokenLogprob[] = [];
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (!isLast && (this.#unclaimed === 0 || next.length > this.#unclaimed)) break;
      this.#unclaimed = Math.max(0, this.#unclaimed - next.length);
      taken.push(next.entry);
      this.#waiting.shift();
    }
    return taken;
  }
}

function logprobOf(text: string, probability: number | undefined): Logprob {
  const logprob = probability === undefined || probability <= 0 ? leastLogprob : Math.log(probability);
  return { token: text, logprob, bytes: text.includes("\uFFFD") ? null : [...Buffer.from(text)] };
}
