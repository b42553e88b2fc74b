import { PenstockError } from "../../contracts/errors.ts";
import { tableOf } from "../../lib/forward-headers.ts";
import type { Outlet } from "../../lib/outlet.ts";
import type { RequestHooks } from "./request-hooks.ts";
import { SseCutter, textOf, type SseItem } from "./sse-items.ts";

/** What hooks may see of an answer that does not stream. */
const maxAnswerBytes = 16 * 2 ** 20;

/** Bytes of a stream that may wait for hooks before the engine waits too. */
const maxWaitingBytes = 256 * 1024;

/** How an answer passes: as it comes, kept until it is whole, or event by event. */
type Mode = "raw" | "whole" | "events";

/** Stands between the relay and the client's response while hooks see the answer. */
export class HookedOutlet implements Outlet {
  readonly #client: Outlet;
  readonly #hooks: RequestHooks;
  readonly #ended = Promise.withResolvers<void>();
  readonly #onClose = new Set<() => void>();
  readonly #onDrain: (() => void)[] = [];
  readonly #cutter = new SseCutter();
  #mode: Mode | null = null;
  #head: { readonly status: number; readonly headers: Readonly<Record<string, string>> } = { status: 200, headers: {} };
  #chunks: Buffer[] = [];
  #bytes = 0;
  #clientIsFull = false;
  #last: Promise<void> = Promise.resolve();
  #failed = false;

  constructor(client: Outlet, hooks: RequestHooks) {
    this.#client = client;
    this.#hooks = hooks;
    // Who waits for the end comes later than a failure may.
    this.#ended.promise.catch(() => undefined);
    client.on("close", () => this.#closed());
  }

  /** Resolves when all that was written has passed the hooks. Rejects with a refusal or `hook_failed`, for the client. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  get headersSent(): boolean {
    return this.#mode !== null;
  }

  /** Also when hooks have ended a stream: its engine then stops. */
  get destroyed(): boolean {
    return this.#failed || this.#client.destroyed;
  }

  get writableFinished(): boolean {
    return !this.#failed && this.#client.writableFinished;
  }

  setHeader(name: string, value: string): unknown {
    return this.#client.setHeader(name, value);
  }

  writeHead(status: number, list: string[] = []): unknown {
    const headers = tableOf(list);
    this.#head = { status, headers };
    const isStream = (headers["content-type"] ?? "").startsWith("text/event-stream");
    if (isStream) this.#mode = this.#hooks.seeEvents ? "events" : "raw";
    else this.#mode = this.#hooks.seeAnswers ? "whole" : "raw";
    if (this.#mode !== "whole") this.#client.writeHead(status, this.#mode === "events" ? unsized(headers) : list);
    return this;
  }

  flushHeaders(): void {
    if (this.#mode !== "whole") this.#client.flushHeaders();
  }

  write(chunk: Buffer | string): boolean {
    if (this.#mode === "raw") return this.#client.write(chunk);
    if (this.#mode === "events") return this.#transform(() => this.#cutter.write(Buffer.from(chunk)), chunk.length);
    this.#bytes += chunk.length;
    this.#chunks.push(Buffer.from(chunk));
    if (this.#bytes > maxAnswerBytes) this.#giveUp();
    return true;
  }

  end(rest?: Buffer | string): unknown {
    if (rest !== undefined) this.write(rest);
    if (this.#mode === "events") this.#transform(() => this.#cutter.end(), 0);
    else if (this.#mode === "whole") this.#then(() => this.#answer());
    this.#then(async () => {
      this.#client.end();
      this.#ended.resolve();
    });
    return this;
  }

  destroy(): unknown {
    this.#client.destroy();
    return this;
  }

  on(_: "close", listener: () => void): unknown {
    this.#onClose.add(listener);
    return this;
  }

  off(_: "close", listener: () => void): unknown {
    this.#onClose.delete(listener);
    return this;
  }

  once(_: "drain", listener: () => void): unknown {
    if (this.#mode === "raw") this.#client.once("drain", listener);
    else this.#onDrain.push(listener);
    return this;
  }

  /** One after the other; nothing follows a failure. */
  #then(step: () => Promise<void>): void {
    this.#last = this.#after(this.#last, step);
  }

  async #after(earlier: Promise<void>, step: () => Promise<void>): Promise<void> {
    await earlier;
    if (this.#failed) return;
    try {
      await step();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The error is for the client, whose response is still open. For the engine the client has left. */
  #fail(error: unknown): void {
    this.#failed = true;
    this.#ended.reject(error instanceof PenstockError ? error : broken(error));
    this.#chunks = [];
    for (const listener of this.#onClose) listener();
  }

  #closed(): void {
    // It never ends by itself now.
    this.#ended.resolve();
    for (const listener of this.#onClose) listener();
  }

  #transform(cut: () => SseItem[], bytes: number): boolean {
    this.#bytes += bytes;
    this.#then(async () => {
      const items = cut();
      const passed = items.length === 0 ? items : await this.#hooks.events(items);
      this.#bytes -= bytes;
      const text = textOf(passed);
      if (text !== "" && !this.#client.write(text) && !this.#clientIsFull) {
        this.#clientIsFull = true;
        this.#client.once("drain", () => {
          this.#clientIsFull = false;
          this.#tellOfRoom();
        });
      }
      this.#tellOfRoom();
    });
    return this.#hasRoom;
  }

  get #hasRoom(): boolean {
    return this.#bytes <= maxWaitingBytes && !this.#clientIsFull;
  }

  #tellOfRoom(): void {
    if (this.#hasRoom) for (const listener of this.#onDrain.splice(0)) listener();
  }

  async #answer(): Promise<void> {
    const { status, headers } = this.#head;
    const body = Buffer.concat(this.#chunks);
    const isJson = (headers["content-type"] ?? "").includes("json");
    const changed = await this.#hooks.after({
      status,
      headers,
      body: isJson ? parse(body) : null,
    });
    const sent = changed ?? body;
    this.#client.writeHead(status, [...unsized(headers), "content-length", String(sent.length)]);
    this.#client.write(sent);
  }

  #giveUp(): void {
    try {
      this.#hooks.tooLong();
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#mode = "raw";
    this.#client.writeHead(this.#head.status, Object.entries(this.#head.headers).flat());
    for (const chunk of this.#chunks.splice(0)) this.#client.write(chunk);
  }
}

/** As a list again, without the length that the answer will not have. */
function unsized(headers: Readonly<Record<string, string>>): string[] {
  const { "content-length": _, ...others } = headers;
  return Object.entries(others).flat();
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    return null;
  }
}

function broken(cause: unknown): PenstockError {
  return new PenstockError("hook_failed", "The gateway's checks of this answer failed; try again later.", { cause });
}
