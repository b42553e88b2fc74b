import type { IncomingHttpHeaders } from "node:http";
import type { RelayTap } from "../../lib/relay.ts";
import { JsonUsage } from "./json-usage.ts";
import { SseUsage } from "./sse-usage.ts";
import { noTokens, type TokenCounts } from "./tokens.ts";

/** What a tap has seen of one answer. */
export interface Seen {
  readonly tokens: TokenCounts;
  /** The engine did not tell all of them: the rest is events counted as tokens, and the prompt as it was estimated. */
  readonly estimated: boolean;
  /** `performance.now()` of the first byte of the body; null when none came. */
  readonly firstByteMs: number | null;
}

/** Counts what an answer cost while the relay writes it, from the engine's own numbers where it tells them. */
export class UsageTap implements RelayTap {
  readonly #hidesUsage: boolean;
  #reader: SseUsage | JsonUsage | null = null;
  #tokens: TokenCounts | null = null;
  #firstByteMs: number | null = null;
  #ended = false;
  #status = 0;

  /** `hidesUsage`: see `JsonCall`. */
  constructor(hidesUsage: boolean) {
    this.#hidesUsage = hidesUsage;
  }

  begin(status: number, headers: IncomingHttpHeaders): void {
    this.#status = status;
    const type = headers["content-type"] ?? "";
    const readable = status < 300 && (headers["content-encoding"] ?? "identity") === "identity";
    this.#reader = null;
    if (readable && type.startsWith("text/event-stream")) this.#reader = new SseUsage(this.#hidesUsage);
    else if (readable && type.includes("json")) this.#reader = new JsonUsage();
  }

  write(chunk: Buffer): Buffer | null {
    this.#firstByteMs ??= performance.now();
    if (this.#reader instanceof SseUsage) return this.#reader.write(chunk);
    this.#reader?.write(chunk);
    return chunk;
  }

  end(): Buffer | null {
    this.#ended = true;
    if (!(this.#reader instanceof SseUsage)) {
      this.#tokens = this.#reader?.end() ?? null;
      return null;
    }
    const rest = this.#reader.end();
    this.#tokens = this.#reader.usage;
    return rest;
  }

  /**
   * What the answer cost. `promptTokens` is what the prompt was estimated at, for an engine that did not tell it.
   * An answer that never began, or is an error, costs nothing.
   */
  seen(promptTokens: number): Seen {
    const firstByteMs = this.#firstByteMs;
    if (this.#tokens !== null) return { tokens: this.#tokens, estimated: false, firstByteMs };
    if (this.#status === 0 || this.#status >= 300) return { tokens: noTokens, estimated: false, firstByteMs };
    const told = this.#reader instanceof SseUsage ? this.#reader.usage : null;
    const events = this.#reader instanceof SseUsage ? this.#reader.events : 0;
    const tokens = {
      ...(told ?? noTokens),
      prompt: told?.prompt ?? promptTokens,
      completion: Math.max(told?.completion ?? 0, events),
    };
    return { tokens, estimated: true, firstByteMs };
  }

  /** Whether the last byte has come. */
  get ended(): boolean {
    return this.#ended;
  }
}
