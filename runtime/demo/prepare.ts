import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeParaphrases, writeText } from "./corpus/corpus.ts";
import { Tokenizer, trainVocabulary, type Vocabulary } from "./tokenizer.ts";

/*
 * Writes what train.py reads: vocabulary.json, and for each row length tokens (16-bit ids), weights (1 where the
 * assistant speaks) and documents (which text of its row a token belongs to, so that texts do not see each other);
 * for embeddings, pairs of paraphrases (tokens) with a number for what they mean.
 */

/** Lengths of training rows. Short rows train faster; the longest is the context that is served. */
const rowLengths = [128, 256, 512] as const;

/** Size of the vocabulary. */
const vocabularySize = 1536;

/** Texts that the vocabulary is learned from. */
const vocabularyTexts = 10_000;

/** Pairs of paraphrases, and the tokens that each side may have. */
const pairCount = 20_000;
const pairLength = 24;

/** The document number of padding. */
const padding = 255;

/** 1 for what the assistant says and for plain texts, 0 for what it only reads. */
export function lossWeights(tokens: readonly string[]): number[] {
  const isPlain = tokens[0] !== "<|im_start|>";
  let speaking = isPlain;
  let header = 0;
  return tokens.map((token, at) => {
    if (token === "<|im_start|>") {
      speaking = false;
      header = at;
      return 0;
    }
    const weight = speaking ? 1 : 0;
    if (token === "<|im_end|>") speaking = false;
    // The role and a line break follow the marker; what the assistant says starts behind them.
    else if (!isPlain && !speaking && at === header + 2) speaking = tokens[at - 1] === "assistant";
    return weight;
  });
}

/** Texts packed into rows of one length. */
class Rows {
  readonly length: number;
  readonly #tokens: number[] = [];
  readonly #weights: number[] = [];
  readonly #documents: number[] = [];
  #used = 0;
  #document = 0;

  constructor(length: number) {
    this.length = length;
  }

  add(ids: readonly number[], weights: readonly number[]): void {
    if (this.#used + ids.length > this.length) this.#endRow();
    for (const [at, id] of ids.entries()) this.#push(id, weights[at] ?? 0, this.#document);
    this.#document += 1;
  }

  write(directory: string): void {
    this.#endRow();
    const path = (name: string): string => join(directory, `${name}-${this.length}`);
    writeFileSync(path("tokens"), Uint16Array.from(this.#tokens));
    writeFileSync(path("weights"), Uint8Array.from(this.#weights));
    writeFileSync(path("documents"), Uint8Array.from(this.#documents));
    process.stdout.write(`${this.#tokens.length} tokens in rows of ${this.length}\n`);
  }

  #push(id: number, weight: number, document: number): void {
    this.#tokens.push(id);
    this.#weights.push(weight);
    this.#documents.push(document);
    this.#used += 1;
  }

  #endRow(): void {
    while (this.#used > 0 && this.#used < this.length) this.#push(0, 0, padding);
    this.#used = 0;
    this.#document = 0;
  }
}

function* corpus(seed: number, count: number): Generator<string> {
  for (let index = 0; index < count; index += 1) yield writeText(seed, index);
}

function writePairs(work: string, seed: number, tokenizer: Tokenizer): void {
  const meanings = new Map<string, number>();
  const tokens = new Uint16Array(pairCount * 2 * pairLength);
  const numbers = new Uint16Array(pairCount);
  for (let index = 0; index < pairCount; index += 1) {
    const { texts, meaning } = writeParaphrases(seed, index);
    const number = meanings.get(meaning) ?? meanings.size;
    meanings.set(meaning, number);
    numbers[index] = number;
    for (const [side, text] of texts.entries()) {
      tokens.set(tokenizer.encode(text).slice(0, pairLength), (index * 2 + side) * pairLength);
    }
  }
  writeFileSync(join(work, `pairs-${pairLength}`), tokens);
  writeFileSync(join(work, "meanings"), numbers);
}

interface PrepareOptions {
  readonly work: string;
  readonly seed: number;
  readonly texts: number;
  /** Folder of an earlier run whose vocabulary to keep. */
  readonly start?: string | undefined;
}

/** Writes the training files of `texts` texts of the corpus of `seed` into `work`. */
export function prepare({ work, seed, texts, start }: PrepareOptions): void {
  mkdirSync(work, { recursive: true });
  process.stdout.write("vocabulary ...\n");
  const vocabulary =
    start === undefined
      ? trainVocabulary(corpus(seed, vocabularyTexts), vocabularySize)
      : (JSON.parse(readFileSync(join(start, "vocabulary.json"), "utf8")) as Vocabulary); // this function wrote it
  writeFileSync(join(work, "vocabulary.json"), JSON.stringify(vocabulary));
  const tokenizer = new Tokenizer(vocabulary);
  process.stdout.write("tokens ...\n");
  const rows = rowLengths.map((length) => new Rows(length));
  for (const text of corpus(seed, texts)) {
    const ids = tokenizer.encode(text);
    const weights = lossWeights(ids.map((id) => vocabulary.tokens[id] ?? ""));
    rows.find(({ length }) => ids.length <= length)?.add(ids, weights);
  }
  for (const packed of rows) packed.write(work);
  writePairs(work, seed, tokenizer);
}
