import type { Token, Vocabulary } from "./vocabulary.ts";

/** A character has at most 4 bytes, so 4 tokens that still end in half a character will never complete it. */
const longestCharacter = 4;
/** Tokens in front that a tokenizer may want to see to place spaces. */
const contextTokens = 4;
const broken = "\uFFFD";

/** Turns tokens into text as they come, and holds back what is only part of a character. */
export class TokenText {
  readonly #vocabulary: Vocabulary;
  /** Tokens that are shown although they are special: the markers of tool calls. */
  readonly #visible: ReadonlySet<string>;
  #before: Token[] = [];
  #pending: Token[] = [];

  constructor(vocabulary: Vocabulary, visible: readonly string[] = []) {
    this.#vocabulary = vocabulary;
    this.#visible = new Set(visible);
  }

  /** The text that `token` completes; empty while a character is incomplete. */
  push(token: Token): string {
    const raw = this.#visible.size > 0 ? this.#vocabulary.rawText(token) : "";
    if (this.#visible.has(raw)) return this.#take(this.#pending.length) + raw;
    this.#pending.push(token);
    const text = this.#vocabulary.text(this.#pending, this.#before);
    if (!text.endsWith(broken)) return this.#take(this.#pending.length, text);
    return this.#pending.length < longestCharacter ? "" : this.#take(1);
  }

  /** What is left at the end, without an incomplete last character. */
  end(): string {
    return this.#take(this.#pending.length).replace(/\uFFFD+$/, "");
  }

  #take(count: number, known?: string): string {
    const tokens = this.#pending.splice(0, count);
    const text = known ?? this.#vocabulary.text(tokens, this.#before);
    this.#before = [...this.#before, ...tokens].slice(-contextTokens);
    return text;
  }
}
