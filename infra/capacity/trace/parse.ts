import { z } from "zod";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { problemLines } from "../../../runtime/contracts/validate.ts";
import { mostSeconds, type TraceRequest } from "./requests.ts";

/** Most tokens that a request of a trace may have; more is a column read wrongly. */
const tokens = z.int().min(0).max(10_000_000);

const forms = {
  /** Mooncake's published columns; `timestamp` in ms. */
  mooncake: z
    .object({ timestamp: z.number().min(0), input_length: tokens, output_length: tokens })
    .transform(({ timestamp, input_length: input, output_length: output }) => ({
      atSeconds: timestamp / 1_000,
      inputTokens: input,
      outputTokens: output,
      model: null,
    })),
  own: z
    .strictObject({
      at_seconds: z.number().min(0),
      input_tokens: tokens,
      output_tokens: tokens,
      model: z.string().min(1).max(200).optional(),
    })
    .transform(({ at_seconds: atSeconds, input_tokens: input, output_tokens: output, model }) => ({
      atSeconds,
      inputTokens: input,
      outputTokens: output,
      model: model ?? null,
    })),
} as const;

const azureHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";
const azureLine = /^(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?),(\d{1,8}),(\d{1,8})$/;

type Form = keyof typeof forms | "azure";

/**
 * Reads the lines of a trace: Mooncake's JSONL, Azure's CSV, or lines of
 * `{"at_seconds": 1.5, "input_tokens": 900, "output_tokens": 200, "model": "llama-3.1-8b"}`. Which, the first line says.
 * Times are since the first request. Throws `invalid_config` with the file's name and the line: a line that is neither,
 * a number out of bounds, or a time before that of an earlier line.
 */
export class TraceParser {
  readonly #name: string;
  #form: Form | null = null;
  #line = 0;
  #first: number | null = null;
  #last = 0;

  constructor(name: string) {
    this.#name = name;
  }

  /** A request; null for a blank line or the header. */
  read(line: string): TraceRequest | null {
    this.#line += 1;
    const text = line.trim();
    if (text === "" || (this.#form === null && this.#isHeader(text))) return null;
    this.#form ??= this.#formOf(text);
    const request = this.#form === "azure" ? this.#azure(text) : this.#json(this.#form, text);
    this.#first ??= request.atSeconds;
    const atSeconds = request.atSeconds - this.#first;
    if (request.atSeconds < this.#last) {
      throw this.#problem(
        `its time (${since(request.atSeconds, this.#first)}) is before that of the line above ` +
          `(${since(this.#last, this.#first)}); sort the trace by time`,
      );
    }
    if (atSeconds > mostSeconds) {
      throw this.#problem(
        "it is more than ten years after the first; at_seconds is in seconds, Mooncake's timestamp in ms",
      );
    }
    this.#last = request.atSeconds;
    return { ...request, atSeconds, outputTokens: Math.max(1, request.outputTokens) };
  }

  #isHeader(text: string): boolean {
    if (text !== azureHeader) return false;
    this.#form = "azure";
    return true;
  }

  #formOf(text: string): Form {
    const value = this.#parsed(text);
    if (typeof value === "object" && value !== null && "at_seconds" in value) return "own";
    if (typeof value === "object" && value !== null && "timestamp" in value) return "mooncake";
    throw this.#problem(
      `it is of no form that Penstock reads: Mooncake's JSON lines, Azure's CSV with the header ${azureHeader}, or ` +
        '{"at_seconds": 1.5, "input_tokens": 900, "output_tokens": 200, "model": "llama-3.1-8b"}',
    );
  }

  #json(form: keyof typeof forms, text: string): TraceRequest {
    const result = forms[form].safeParse(this.#parsed(text));
    if (result.success) return result.data;
    throw this.#problem(problemLines(result.error).join("; "));
  }

  #azure(text: string): TraceRequest {
    const [, day, time, input, output] = azureLine.exec(text) ?? [];
    // Date takes three digits of a second; the rest is added.
    const ms = Date.parse(`${day ?? ""}T${(time ?? "").slice(0, 8)}Z`);
    const fraction = Number(`0${(time ?? "").slice(8)}`);
    if (Number.isNaN(ms)) {
      throw this.#problem(
        "it is not TIMESTAMP,ContextTokens,GeneratedTokens as in 2023-11-16 18:17:03.9799600,4808,10",
      );
    }
    const atSeconds = ms / 1_000 + fraction;
    return { atSeconds, inputTokens: Number(input), outputTokens: Number(output), model: null };
  }

  #parsed(text: string): unknown {
    try {
      return JSON.parse(text);
    } catch {
      throw this.#problem("it is no JSON");
    }
  }

  #problem(what: string): PenstockError {
    return new PenstockError("invalid_config", `${this.#name}, line ${this.#line}: ${what}`);
  }
}

function since(atSeconds: number, first: number): string {
  return `${(atSeconds - first).toFixed(3)} s`;
}
