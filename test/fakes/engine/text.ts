/** A 53-bit hash of a string (cyrb53): fast enough for prompts of hundreds of kilobytes. */
export function hash53(text: string, seed = 0): number {
  let high = 0xdeadbeef ^ seed;
  let low = 0x41c6ce57 ^ Math.floor(seed / 2 ** 21);
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index);
    high = Math.imul(high ^ unit, 2654435761);
    low = Math.imul(low ^ unit, 1597334677);
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return 4294967296 * (2097151 & low) + (high >>> 0);
}

/** Characters of one token; what GIE's endpoint picker assumes as well. */
export const tokenCharacters = 4;

/** Tokens of a text: one for each four characters, and one for what is left. */
export function countTokens(text: string): number {
  return Math.ceil(text.length / tokenCharacters);
}

/** One token of an answer. */
export interface AnswerToken {
  /** Always four characters. */
  readonly text: string;
  readonly logprob: number;
}

const consonants = "bcdfghjklmnprstvwz";
const vowels = "aeiou";

/** The token at `position` of the answer that `seed` stands for; `rank` 1 and up are the less likely ones. */
export function answerToken(seed: number, position: number, rank = 0): AnswerToken {
  const mix = hash53(`${position}:${rank}`, seed);
  const letter = (letters: string, divisor: number): string =>
    letters.charAt(Math.floor(mix / divisor) % letters.length);
  const text = ` ${letter(consonants, 1)}${letter(vowels, 64)}${letter(consonants, 4096)}`;
  // The best token has at least e^-0.9 = 0.4 of the probability, each rank below less than the one above.
  return { text, logprob: -0.001 - ((mix % 9000) / 10_000) * 0.99 - rank * 1.5 };
}

/** What decides an answer. The weights' seed is derived from the model's name. */
export interface AnswerSource {
  readonly weights: number;
  /** 0 for the model itself. */
  readonly adapter: number;
  readonly prompt: string;
  /** Tells the choices of one request apart; 0 for the first. */
  readonly choice: number;
}

/** Seed of one answer: equal sources, equal answers, in every process. */
export function answerSeed({ weights, adapter, prompt, choice }: AnswerSource): number {
  return hash53(`${weights}/${adapter}/${choice}`, hash53(prompt));
}

/** Tokens after which the answer of `seed` ends by itself: 16 to 255. */
export function naturalLength(seed: number): number {
  return 16 + (Math.floor(seed / 1024) % 240);
}

/** A unit vector that depends on weights, adapter and text alone. */
export function embeddingOf(source: AnswerSource, dimensions: number): number[] {
  const seed = answerSeed(source);
  const raw = Array.from({ length: dimensions }, (_, index) => (hash53(String(index), seed) / 2 ** 53) * 2 - 1);
  const norm = Math.hypot(...raw) || 1;
  return raw.map((value) => value / norm);
}

/** Token ids of a text: its four characters packed as bytes; text outside Latin-1 gets ids that do not decode. */
export function tokenize(text: string): number[] {
  const ids: number[] = [];
  for (let start = 0; start < text.length; start += tokenCharacters) {
    const piece = text.slice(start, start + tokenCharacters);
    let id = 0;
    for (let index = piece.length - 1; index >= 0; index -= 1) id = id * 256 + piece.charCodeAt(index);
    ids.push(id < 2 ** 32 ? id : hash53(piece) % 2 ** 32);
  }
  return ids;
}

/** The text of token ids; the inverse of `tokenize` for Latin-1 text. */
export function detokenize(ids: readonly number[]): string {
  return ids.map((id) => pieceOf(id)).join("");
}

function pieceOf(id: number): string {
  let piece = "";
  for (let rest = Math.trunc(id); rest > 0; rest = Math.floor(rest / 256)) piece += String.fromCharCode(rest % 256);
  return piece;
}
