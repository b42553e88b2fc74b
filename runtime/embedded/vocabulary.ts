import { LlamaVocabularyType, type LlamaModel, type Token } from "node-llama-cpp";

export type { Token };

/** The model's tokenizer, with what the engine must know about its special tokens. */
export class Vocabulary {
  readonly #model: LlamaModel;
  readonly size: number;
  /** Texts of control tokens (`<|im_end|>`): they never come from what a user wrote. */
  readonly controlTexts: readonly string[];

  constructor(model: LlamaModel) {
    this.#model = model;
    const control: string[] = [];
    let size = 0;
    for (const token of model.iterateAllTokens()) {
      size += 1;
      const { control: isControl, unknown } = model.getTokenAttributes(token);
      const text = isControl || unknown ? model.detokenize([token], true) : "";
      if (text.trim().length > 1) control.push(text);
    }
    this.size = size;
    this.controlTexts = control;
  }

  get bosText(): string {
    return this.#model.tokens.bosString ?? "";
  }

  get eosText(): string {
    return this.#model.tokens.eosString ?? "";
  }

  /** Tokens of a prompt as it stands; texts of control tokens become those tokens. BOS in front where the model wants it. */
  promptTokens(text: string): Token[] {
    return this.withBos(this.#model.tokenize(text, true));
  }

  /** Tokens of a rendered chat. A control token never forms across the border of two pieces. */
  piecesTokens(pieces: readonly string[]): Token[] {
    const tokens = pieces.flatMap((piece, index) =>
      index === 0 ? this.#model.tokenize(piece, true) : this.#model.tokenize(piece, true, "trimLeadingSpace"),
    );
    return this.withBos(tokens);
  }

  /** Tokens of text that continues a prompt. */
  continuationTokens(text: string): Token[] {
    return this.#model.tokenize(text, true, "trimLeadingSpace");
  }

  /** Token ids from a request, or undefined when one of them is not in the vocabulary. */
  checkedTokens(ids: readonly number[]): Token[] | undefined {
    const known = ids.every((id) => id >= 0 && id < this.size);
    return known ? (ids as readonly Token[]).slice() : undefined; // a token is a branded number
  }

  /** Text of `tokens`; `before` are the tokens in front of them, which some tokenizers need for spaces. */
  text(tokens: readonly Token[], before: readonly Token[] = []): string {
    return this.#model.detokenize(tokens, false, before);
  }

  /** Text of one token, special or not. */
  rawText(token: Token): string {
    return this.#model.detokenize([token], true);
  }

  isEnd(token: Token): boolean {
    return this.#model.isEogToken(token);
  }

  private withBos(tokens: Token[]): Token[] {
    const { bos, shouldPrependBosToken } = this.#model.tokens;
    const wanted = shouldPrependBosToken || this.#model.vocabularyType === LlamaVocabularyType.wpm;
    return wanted && bos !== null && tokens[0] !== bos ? [bos, ...tokens] : tokens;
  }
}
