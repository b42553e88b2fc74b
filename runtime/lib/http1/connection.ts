import { connect, type Socket } from "node:net";
import type { Readable } from "node:stream";
import type { IncomingHttpHeaders } from "node:http";
import { errors } from "undici";
import type { AnswerHead } from "./answer-head.ts";
import { AnswerParser, type AnswerEvents } from "./answer-parser.ts";
import { Deadline } from "./deadline.ts";
import { writeHead } from "./request-head.ts";
import { upload } from "./upload.ts";

/** One request. */
export interface UpstreamRequest {
  readonly path: string;
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  /** A stream's length is what `content-length` says; without one it is sent in chunks. */
  readonly body: Buffer | Readable | null;
  /** How long it may take until the first line of the answer, in ms. */
  readonly headersTimeout: number;
  /** How long the other side may be silent inside a body, in ms. */
  readonly bodyTimeout: number;
}

/** How who gets an answer steers it. Once that is over, nothing of it has an effect. */
export interface AnswerControl {
  /** Ends the connection; `onResponseError` hears of `reason`. */
  abort(reason: Error): void;
  /** Reads nothing more of the answer until `resume`. */
  pause(): void;
  resume(): void;
}

/** Who gets an answer. Methods are called in this order; after `onResponseEnd` or `onResponseError` comes nothing. */
export interface AnswerHandler {
  onRequestStart(control: AnswerControl): void;
  onResponseStart(control: AnswerControl, status: number, headers: IncomingHttpHeaders): void;
  onResponseData(control: AnswerControl, chunk: Buffer): void;
  onResponseEnd(): void;
  onResponseError(control: AnswerControl, error: Error): void;
}

/** Where a connection goes, and who keeps it. */
export interface ConnectionOptions {
  readonly hostname: string;
  readonly port: number;
  /** What `host` says. */
  readonly host: string;
  readonly connectTimeoutMs: number;
  /** How long it stays open without a request, unless the other side says less. */
  readonly idleTimeoutMs: number;
  /** It can take the next request. */
  readonly onIdle: (connection: Connection) => void;
  readonly onClosed: (connection: Connection) => void;
}

/** A body up to this is copied behind its head, since one buffer leaves faster than two. */
const maxJoinedBytes = 16_384;

/** Of no request. */
const over: AnswerControl = { abort: () => undefined, pause: () => undefined, resume: () => undefined };

/** The other side closes first if it says when: this much before, no request may be sent any more. */
const hintMarginMs = 1_000;

/** A connection to one server, with one request at a time. */
export class Connection implements AnswerEvents {
  readonly #options: ConnectionOptions;
  readonly #socket: Socket;
  readonly #deadline = new Deadline(() => this.#onLate());
  #parser: AnswerParser | null = null;
  #request: UpstreamRequest | null = null;
  #control = over;
  #handler: AnswerHandler | null = null;
  /** A body that has not left as a whole. */
  #upload: Disposable | null = null;
  #persists = true;
  #isConnected = false;
  #isPaused = false;
  /** Bytes that came and must wait. */
  #held: Buffer | null = null;
  #idleTimeoutMs: number;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#idleTimeoutMs = options.idleTimeoutMs;
    const socket = connect({ host: options.hostname, port: options.port, noDelay: true, keepAlive: true });
    this.#socket = socket;
    this.#deadline.set(options.connectTimeoutMs);
    socket.once("connect", () => {
      this.#isConnected = true;
      if (this.#request !== null) this.#deadline.set(this.#request.headersTimeout);
    });
    socket.on("data", (bytes) => this.#read(bytes));
    socket.on("end", () => this.#onEnd());
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => {
      this.#fail(new errors.SocketError("other side closed"));
      this.#deadline.stop();
      options.onClosed(this);
    });
  }

  /** Whether a request may be sent, as far as one can see from here. */
  get isOpen(): boolean {
    return !this.#socket.destroyed;
  }

  /** Sends a request; the connection must be new, or idle. */
  send(request: UpstreamRequest, handler: AnswerHandler): void {
    this.#request = request;
    this.#handler = handler;
    this.#isPaused = false;
    this.#control = {
      abort: (reason) => {
        if (this.#request === request) this.#fail(reason);
      },
      pause: () => {
        if (this.#request === request) this.#pause();
      },
      resume: () => {
        if (this.#request === request && this.#isPaused) this.#resume(request);
      },
    };
    handler.onRequestStart(this.#control);
    // It may have given up already.
    if (this.#handler === null) return;
    this.#parser = new AnswerParser(request.method, this);
    if (this.#isConnected) this.#deadline.set(request.headersTimeout);
    try {
      this.#write(request);
    } catch (error) {
      this.#fail(error instanceof Error ? error : new TypeError(String(error)));
    }
  }

  /** Ends an idle connection, and fails what runs. */
  destroy(): void {
    this.#fail(new errors.ClientDestroyedError());
    this.#socket.destroy();
  }

  onHead({ status, headers, persists }: AnswerHead): void {
    this.#persists = persists;
    const hint = /timeout=(\d{1,6})/.exec(String(headers["keep-alive"] ?? ""))?.[1];
    this.#idleTimeoutMs = Math.min(
      this.#options.idleTimeoutMs,
      hint === undefined ? Infinity : Number(hint) * 1_000 - hintMarginMs,
    );
    this.#handler?.onResponseStart(this.#control, status, headers);
  }

  onData(chunk: Buffer): boolean {
    this.#handler?.onResponseData(this.#control, chunk);
    return !this.#isPaused && this.#handler !== null;
  }

  onEnd(): void {
    this.#handler?.onResponseEnd();
    this.#handler = null;
  }

  #pause(): void {
    this.#isPaused = true;
    this.#deadline.clear();
    this.#socket.pause();
  }

  #resume(request: UpstreamRequest): void {
    this.#isPaused = false;
    this.#deadline.set(request.bodyTimeout);
    const held = this.#held;
    this.#held = null;
    if (held !== null) this.#read(held);
    if (!this.#isPaused) this.#socket.resume();
  }

  #read(bytes: Buffer): void {
    const parser = this.#parser;
    const request = this.#request;
    if (parser === null || request === null) {
      // Nobody asked.
      this.#socket.destroy();
      return;
    }
    try {
      const rest = parser.feed(bytes);
      if (parser.isDone) this.#finish(rest !== null);
      else if (this.#isPaused) this.#held = rest;
      else if (this.#handler !== null)
        this.#deadline.set(parser.hasHead ? request.bodyTimeout : request.headersTimeout);
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** The answer is whole. More bytes, or a request that is not, leave the connection in a state that nobody knows. */
  #finish(hasMore: boolean): void {
    const isSent = this.#upload === null;
    this.#letGo();
    if (hasMore || !this.#persists || !isSent || this.#idleTimeoutMs <= 0) {
      this.#socket.destroy();
      return;
    }
    if (this.#isPaused) this.#socket.resume();
    this.#isPaused = false;
    this.#deadline.set(this.#idleTimeoutMs);
    this.#options.onIdle(this);
  }

  #onEnd(): void {
    if (this.#parser?.close() === true) this.#finish(true);
    else this.#fail(new errors.SocketError("other side closed"));
  }

  #onLate(): void {
    if (this.#request === null) this.#socket.destroy();
    else if (!this.#isConnected) this.#fail(new errors.ConnectTimeoutError());
    else if (this.#parser?.hasHead === true) this.#fail(new errors.BodyTimeoutError());
    else this.#fail(new errors.HeadersTimeoutError());
  }

  #fail(error: Error): void {
    const handler = this.#handler;
    const control = this.#control;
    this.#handler = null;
    this.#letGo();
    this.#socket.destroy();
    handler?.onResponseError(control, error);
  }

  #letGo(): void {
    this.#upload?.[Symbol.dispose]();
    this.#upload = null;
    this.#control = over;
    this.#request = null;
    this.#parser = null;
    this.#held = null;
  }

  #write(request: UpstreamRequest): void {
    const { body, method, path, headers } = request;
    const head = { method, path, headers, host: this.#options.host };
    if (body === null || Buffer.isBuffer(body)) {
      const isEmpty = body === null && (method === "GET" || method === "HEAD");
      this.#writeWhole(writeHead({ ...head, length: isEmpty ? null : (body?.length ?? 0) }), body);
      return;
    }
    const told = Number(headers["content-length"]);
    const length = Number.isSafeInteger(told) ? told : "chunked";
    this.#socket.write(writeHead({ ...head, length }), "latin1");
    this.#upload = upload(
      this.#socket,
      { body, length },
      {
        onProgress: () => {
          if (this.#isConnected && this.#parser?.hasHead !== true) this.#deadline.set(request.headersTimeout);
        },
        onSent: () => (this.#upload = null),
        onFailed: (error) => this.#fail(error),
      },
    );
  }

  #writeWhole(head: string, body: Buffer | null): void {
    const socket = this.#socket;
    if (body === null || body.length === 0) socket.write(head, "latin1");
    else if (body.length <= maxJoinedBytes) {
      const bytes = Buffer.allocUnsafe(head.length + body.length);
      bytes.write(head, "latin1");
      body.copy(bytes, head.length);
      socket.write(bytes);
    } else {
      socket.cork();
      socket.write(head, "latin1");
      socket.write(body);
      socket.uncork();
    }
  }
}
