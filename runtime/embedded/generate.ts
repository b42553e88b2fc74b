import type { LlamaGrammar, LlamaModel } from "node-llama-cpp";
import { grammarState } from "./grammar.ts";
import { evaluateOptions, type Sampling } from "./sampling.ts";
import { throwIfClosed, type Slot } from "./slots.ts";
import { StopText } from "./stop-text.ts";
import { LogprobQueue, type TokenLogprob } from "./logprobs.ts";
import { TokenText } from "./token-text.ts";
import { readToolCall, type ToolCall, type ToolFormat } from "./tool-calls.ts";
import type { Token, Vocabulary } from "./vocabulary.ts";

/** Tool calls in a generation: how they are written, and the grammar that each one follows. */
export interface ToolWriting {
  readonly format: ToolFormat;
  /** Forces one call's JSON and the closing marker. */
  readonly grammar: LlamaGrammar;
  /** Whether the prompt ends in the opening marker already. */
  readonly forced: boolean;
  readonly parallel: boolean;
}

/** One text to generate. */
export interface GenerationJob {
  readonly prompt: readonly Token[];
  /** Most tokens to generate, within the context; 0 evaluates the prompt only. */
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly sampling: Sampling;
  /** Forces the whole text. */
  readonly grammar: LlamaGrammar | undefined;
  readonly tools: ToolWriting | undefined;
}

/** Why a generation ended, in OpenAI's words. */
export type FinishReason = "stop" | "length" | "tool_calls";

/** What a generation brings, in order; `end` comes once, last. */
export type GenerationEvent =
  | { readonly type: "prefilled"; readonly cachedTokens: number }
  | { readonly type: "token" }
  | { readonly type: "text"; readonly text: string; readonly logprobs: readonly TokenLogprob[] }
  | { readonly type: "tool_call"; readonly call: ToolCall }
  | { readonly type: "end"; readonly reason: FinishReason };

/** What a generation runs on. */
export interface GenerationPlace {
  readonly model: LlamaModel;
  readonly vocabulary: Vocabulary;
  readonly slot: Slot;
  readonly signal: AbortSignal;
}

/** Generates one text on a slot. Throws `client_closed` when the signal aborts. */
export function generate(job: GenerationJob, place: GenerationPlace): AsyncGenerator<GenerationEvent> {
  return new Generation(job, place).run();
}

type Step = { readonly events: readonly GenerationEvent[]; readonly next: "go on" | "start over" | FinishReason };

class Generation {
  readonly #job: GenerationJob;
  readonly #place: GenerationPlace;
  readonly #generated: Token[] = [];
  readonly #text: TokenText;
  readonly #logprobs = new LogprobQueue();
  #scanner: StopText;
  /** The call that is being written, from behind its opening marker; undefined outside of calls. */
  #call: string | undefined;
  #calls = 0;
  /** All text so far, markers and calls too. */
  #written = "";
  #grammar;

  constructor(job: GenerationJob, place: GenerationPlace) {
    this.#job = job;
    this.#place = place;
    const { tools } = job;
    this.#text = new TokenText(place.vocabulary, tools === undefined ? [] : [tools.format.open, tools.format.close]);
    this.#scanner = new StopText(tools === undefined ? job.stop : [...job.stop, tools.format.open]);
    this.#grammar = job.grammar === undefined ? undefined : grammarState(place.model, job.grammar);
    if (tools?.forced === true) this.#beginCall(tools);
  }

  async *run(): AsyncGenerator<GenerationEvent> {
    const { slot, signal } = this.#place;
    let input = this.#job.prompt;
    let isFirst = true;
    for (;;) {
      const cachedTokens = await slot.prefill(input, signal);
      if (isFirst) yield { type: "prefilled", cachedTokens };
      isFirst = false;
      const isFull = this.#job.maxTokens === 0 || input.length >= slot.sequence.contextSize;
      const next = isFull ? "length" : yield* this.#sample(input.slice(-1));
      if (next !== "start over") {
        yield { type: "end", reason: next };
        return;
      }
      input = [...this.#job.prompt, ...this.#place.vocabulary.continuationTokens(this.#written)];
    }
  }

  async *#sample(last: readonly Token[]): AsyncGenerator<GenerationEvent, "start over" | FinishReason> {
    const { slot, model, signal } = this.#place;
    const { sampling } = this.#job;
    const options = evaluateOptions(sampling, model, this.#generated);
    options.grammarEvaluationState = () => this.#grammar;
    const probabilities = sampling.topLogprobs !== undefined;
    // Typed as if they were always there, since the type cannot depend on the flag.
    const samples: AsyncGenerator<{ token: Token; probabilities?: Map<Token, number> }> =
      slot.sequence.evaluateWithMetadata([...last], { probabilities: probabilities as true }, options);
    for await (const sample of samples) {
      throwIfClosed(signal);
      const step = this.#accept(sample.token, sample.probabilities);
      for (const event of step.events) yield event;
      if (step.next !== "go on") return step.next;
    }
    return "stop";
  }

  #accept(token: Token, probabilities: Map<Token, number> | undefined): Step {
    const { vocabulary } = this.#place;
    const isEnd = vocabulary.isEnd(token);
    if (isEnd && !this.#job.sampling.ignoreEnd) return this.#finish(this.#calls > 0 ? "tool_calls" : "stop");
    this.#generated.push(token);
    const piece = isEnd ? "" : this.#text.push(token);
    this.#written += piece;
    if (probabilities !== undefined && this.#call === undefined) {
      const { topLogprobs = 0 } = this.#job.sampling;
      this.#logprobs.add({ token, piece, probabilities, topLogprobs }, vocabulary);
    }
    const step = this.#call === undefined ? this.#inText(piece) : this.#inCall(piece);
    const events: readonly GenerationEvent[] = [{ type: "token" }, ...step.events];
    const goesOn = step.next === "go on" || step.next === "start over";
    if (goesOn && this.#generated.length >= this.#job.maxTokens) {
      const last = this.#finish("length");
      return { events: [...events, ...last.events], next: last.next };
    }
    return { events, next: step.next };
  }

  #inText(piece: string): Step {
    const { tools } = this.#job;
    const { text, found, rest } = this.#scanner.push(piece);
    // Between and behind calls there is only white space; anything else means that the model is done with calling.
    if (this.#calls > 0 && text.trim() !== "") return { events: [], next: "tool_calls" };
    const events = this.#calls > 0 ? [] : this.#textEvents(text);
    if (found === undefined) return { events, next: "go on" };
    if (tools === undefined || found !== tools.format.open)
      return { events, next: this.#calls > 0 ? "tool_calls" : "stop" };
    this.#beginCall(tools);
    if (rest.trim() === "") return { events, next: "go on" };
    // The grammar must see the call from its first character, so a token that reaches into it is taken back.
    this.#written = this.#written.slice(0, this.#written.length - rest.length);
    return { events, next: "start over" };
  }

  #inCall(piece: string): Step {
    const { tools } = this.#job;
    if (tools === undefined) throw new Error("a tool call without tools");
    this.#call = (this.#call ?? "") + piece;
    const call = readToolCall(this.#call, tools.format);
    if (call === undefined) return { events: [], next: "go on" };
    this.#call = undefined;
    this.#grammar = undefined;
    this.#calls += 1;
    return { events: [{ type: "tool_call", call }], next: tools.parallel ? "go on" : "tool_calls" };
  }

  #beginCall(tools: ToolWriting): void {
    this.#call = "";
    this.#grammar = grammarState(this.#place.model, tools.grammar);
  }

  #finish(reason: FinishReason): Step {
    if (this.#call !== undefined || this.#calls > 0) return { events: [], next: reason };
    const { text, found } = this.#scanner.push(this.#text.end());
    const events = this.#textEvents(found === undefined ? text + this.#scanner.end() : text, true);
    return { events, next: found === undefined ? reason : "stop" };
  }

  #textEvents(text: string, isLast = false): GenerationEvent[] {
    const logprobs = this.#logprobs.take(text.length, isLast);
    return text === "" && logprobs.length === 0 ? [] : [{ type: "text", text, logprobs }];
  }
}
