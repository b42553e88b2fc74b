/*
 * Byte-level BPE as GPT-2 has it, which llama.cpp reads as `tokenizer.ggml.model = gpt2`, `pre = gpt-2`.
 * Digits never merge, so that every number is spelled digit by digit and sums can be learned.
 */

/** Tokens that structure a chat. Control tokens are never text; the two markers of a tool call are. */
export const controlTokens = ["<|pad|>", "<|im_start|>", "<|im_end|>"] as const;
export const markerTokens = ["<tool_call>", "</tool_call>"] as const;

/** GPT-2's pre-tokenizer, as llama.cpp has it for `gpt-2`. */
const pieces = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

const special = /(<\|pad\|>|<\|im_start\|>|<\|im_end\|>|<tool_call>|<\/tool_call>)/;

/** GPT-2's printable stand-in for each byte. */
export const byteCharacters: readonly string[] = byteTable();

/**
 * A space joins a whole lower-case word only. So a name has the same tokens after a space, a quote or a line break, and
 * copying one out of a sentence into JSON is copying tokens, which a small model can learn.
 */
const space = byteCharacters[32] ?? "";

/** A trained vocabulary: tokens in order of their ids, and merges in order of their rank. */
export interface Vocabulary {
  readonly tokens: readonly string[];
  readonly merges: readonly (readonly [string, string])[];
}

/** Learns merges from texts until the vocabulary has `size` tokens. */
export function trainVocabulary(texts: Iterable<string>, size: number): Vocabulary {
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const part of text.split(special)) {
      if (special.test(part)) continue;
      for (const [piece] of part.matchAll(pieces)) {
        const key = toCharacters(piece);
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
  }
  const words = [...counts].map(([word, count]) => ({ symbols: Array.from(word), count }));
  const base = [...controlTokens, ...markerTokens, ...byteCharacters];
  const merges: [string, string][] = [];
  while (base.length + merges.length < size) {
    const best = bestPair(words);
    if (best === undefined) break;
    merges.push(best);
    for (const word of words) word.symbols = mergePair(word.symbols, best);
  }
  return { tokens: [...base, ...merges.map(([left, right]) => left + right)], merges };
}

function bestPair(words: readonly { symbols: string[]; count: number }[]): [string, string] | undefined {
  const counts = new Map<string, number>();
  for (const { symbols, count } of words) {
    for (let at = 0; at + 1 < symbols.length; at += 1) {
      const [left = "", right = ""] = [symbols[at], symbols[at + 1]];
      if (left.startsWith(space) && !(symbols.length === 2 && /^[a-z]+$/.test(right))) continue;
      const pair = `${left}\n${right}`;
      counts.set(pair, (counts.get(pair) ?? 0) + count);
    }
  }
  let best: string | undefined;
  let most = 1;
  for (const [pair, count] of counts) {
    if (/\d/.test(pair)) continue;
    if (count > most || (count === most && best !== undefined && pair < best)) [best, most] = [pair, count];
  }
  if (best === undefined) return undefined;
  const [left = "", right = ""] = best.split("\n");
  return [left, right];
}

function mergePair(symbols: readonly string[], [left, right]: readonly [string, string]): string[] {
  const merged: string[] = [];
  for (let at = 0; at < symbols.length; at += 1) {
    const symbol = symbols[at] ?? "";
    if (symbol === left && symbols[at + 1] === right) {
      merged.push(left + right);
      at += 1;
    } else merged.push(symbol);
  }
  return merged;
}

/** Text to token ids and back. */
export class Tokenizer {
  readonly vocabulary: Vocabulary;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #ranks: ReadonlyMap<string, number>;
  readonly #cache = new Map<string, readonly number[]>();

  constructor(vocabulary: Vocabulary) {
    this.vocabulary = vocabulary;
    this.#ids = new Map(vocabulary.tokens.map((token, id) => [token, id]));
    this.#ranks = new Map(vocabulary.merges.map(([left, right], rank) => [`${left}\n${right}`, rank]));
  }

  encode(text: string): number[] {
    return text.split(special).flatMap((part) => {
      const id = special.test(part) ? this.#ids.get(part) : undefined;
      if (id !== undefined) return [id];
      return [...part.matchAll(pieces)].flatMap(([piece]) => this.#encodePiece(piece));
    });
  }

  decode(ids: readonly number[]): string {
    const bytes = ids.flatMap((id) => {
      const token = this.vocabulary.tokens[id] ?? "";
      return id < controlTokens.length + markerTokens.length
        ? [...Buffer.from(token)]
        : Array.from(token, (character) => byteCharacters.indexOf(character));
    });
    return Buffer.from(bytes).toString("utf8");
  }

  #encodePiece(piece: string): readonly number[] {
    const known = this.#cache.get(piece);
    if (known !== undefined) return known;
    let symbols = Array.from(toCharacters(piece));
    for (;;) {
      const pair = this.#lowestPair(symbols);
      if (pair === undefined) break;
      symbols = mergePair(symbols, pair);
    }
    const ids = symbols.map((symbol) => this.#ids.get(symbol) ?? 0);
    this.#cache.set(piece, ids);
    return ids;
  }

  #lowestPair(symbols: readonly string[]): [string, string] | undefined {
    let best: [string, string] | undefined;
    let lowest = Infinity;
    for (let at = 0; at + 1 < symbols.length; at += 1) {
      const [left = "", right = ""] = [symbols[at], symbols[at + 1]];
      const rank = this.#ranks.get(`${left}\n${right}`) ?? Infinity;
      if (rank < lowest) [best, lowest] = [[left, right], rank];
    }
    return best;
  }
}

function toCharacters(text: string): string {
  return [...Buffer.from(text, "utf8")].map((byte) => byteCharacters[byte]).join("");
}

function isPrintable(byte: number): boolean {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
}

function byteTable(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    if (isPrintable(byte)) return String.fromCodePoint(byte);
    next += 1;
    return String.fromCodePoint(next - 1);
  });
}
