import { join } from "node:path";
import { failed, replaced, SourceError, statusError } from "../sources/errors.ts";
import type { DirectRequest, Source, SourceFile } from "../sources/source.ts";
import { takeEngine, type DirectEngine, type Landed } from "./direct/engine.ts";
import type { FallbackReason } from "./direct/protocol.ts";
import { withRetry } from "./retry.ts";
import type { Range, TransferLimits } from "./transfer.ts";
import { expectedSum } from "./verify.ts";
import type { Width } from "./width.ts";

export type { FallbackReason } from "./direct/protocol.ts";

/** A request that is about to expire is not begun with. */
const expiryMarginMs = 60_000;
/** The server sends us elsewhere, or the signature has expired (some stores call that 400): a fresh request may help. */
const elsewhere = new Set([301, 302, 303, 307, 308, 400, 401, 403, 404, 410]);
const temporary = (status: number): boolean => [408, 425, 429].includes(status) || status >= 500;

interface Options {
  readonly source: Source;
  readonly work: string;
  readonly limits: TransferLimits & { readonly directFromBytes: number };
  readonly width: Width;
  /** Ranges that are on disk from an earlier try, and those that are missing. */
  readonly onDisk: readonly Range[];
  readonly missing: readonly Range[];
  readonly onFallback: (file: SourceFile, reason: FallbackReason) => void;
}

interface FileState {
  readonly file: SourceFile;
  /** Set once its source's own client has to read the file. */
  reason: FallbackReason | undefined;
  /** Its number in the engine, once it is open there. */
  number: number | undefined;
  missing: number;
  request: Promise<DirectRequest | null> | undefined;
}

/** What a range of a direct transfer reports to. */
interface Hooks {
  readonly signal: AbortSignal;
  readonly onBytes: (bytes: number) => void;
}

/** The fast path: files whose source tells a plain request for them come over plain sockets, straight to disk. */
export class DirectTransfers implements AsyncDisposable {
  readonly #options: Options;
  readonly #files = new Map<string, FileState>();
  #taken: ReturnType<typeof takeEngine> | undefined;

  constructor(options: Options) {
    this.#options = options;
    for (const { file } of options.missing) {
      const state = this.#files.get(file.path);
      if (state !== undefined) state.missing += 1;
      else this.#files.set(file.path, { file, reason: undefined, number: undefined, missing: 1, request: undefined });
    }
    for (const state of this.#files.values()) {
      const reason = this.#unsuited(state.file);
      if (reason !== undefined) this.#fallBack(state, reason);
    }
  }

  /**
   * Brings a range to disk, or part of it: what comes before the answer is there. The rest, if any, is for the source's own
   * client. Throws what `transferRange` throws.
   */
  async transfer(range: Range, hooks: Hooks): Promise<number> {
    const { limits } = this.#options;
    const state = this.#files.get(range.file.path);
    if (state === undefined) return range.start;
    let position = range.start;
    const enough = Math.ceil((range.end - range.start) / 16);
    await withRetry(
      async (progressed) => {
        const from = position;
        const landed = await this.#transferOnce(state, { ...range, start: from }, hooks);
        position = landed.position;
        if (position - from >= enough) progressed();
        this.#conclude(state, landed);
      },
      { limits, signal: hooks.signal },
    );
    state.missing -= 1;
    if (state.missing === 0 && state.number !== undefined) this.#taken?.engine.close(state.number);
    return position;
  }

  /** What a file summed to while it arrived; undefined when not all of it was summed. Throws the signal's reason. */
  async sumOf(path: string, hooks: Hooks): Promise<string | undefined> {
    const { number, reason } = this.#files.get(path) ?? {};
    if (number === undefined || reason !== undefined) return undefined;
    return this.#taken?.engine.digest(number, hooks);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { number } of this.#files.values()) if (number !== undefined) this.#taken?.engine.forget(number);
    await this.#taken?.giveBack();
  }

  #unsuited(file: SourceFile): FallbackReason | undefined {
    const { source, limits } = this.#options;
    if (file.sizeBytes < limits.directFromBytes) return "small";
    if (process.platform !== "linux") return "not_linux";
    return file.ranges && source.direct !== undefined ? undefined : "no_request";
  }

  /** One try, and a second one with a fresh request when the first was refused. */
  async #transferOnce(state: FileState, range: Range, hooks: Hooks): Promise<Landed> {
    const first = await this.#send(state, range, hooks);
    if (first.outcome.kind !== "status" || !elsewhere.has(first.outcome.status)) return first;
    const second = await this.#send(state, { ...range, start: first.position }, hooks);
    if (second.outcome.kind !== "status" || !elsewhere.has(second.outcome.status)) return second;
    return { ...second, outcome: { kind: "unfit", reason: "refused" } };
  }

  async #send(state: FileState, range: Range, { signal, onBytes }: Hooks): Promise<Landed> {
    const { file, start, end } = range;
    const { limits } = this.#options;
    if (state.reason !== undefined) return { position: start, outcome: { kind: "unfit", reason: state.reason } };
    const asked = (state.request ??= this.#ask(state, signal));
    const request = await asked;
    signal.throwIfAborted();
    if (request === null) return { position: start, outcome: { kind: "unfit", reason: "no_request" } };
    if ((request.expiresAtMs ?? Infinity) < Date.now() + expiryMarginMs && state.request === asked) {
      // The ranges after this one ask anew; this one may still make it.
      state.request = undefined;
    }
    const { engine } = (this.#taken ??= takeEngine());
    state.number ??= this.#open(engine, file);
    const landed = await engine.fetch(
      {
        file: state.number,
        start,
        end,
        url: request.url.href,
        headers: request.headers,
        etag: request.etag,
        stallTimeoutMs: limits.stallTimeoutMs,
      },
      { signal, onBytes },
    );
    signal.throwIfAborted();
    const { outcome } = landed;
    if (outcome.kind === "status" && elsewhere.has(outcome.status) && state.request === asked)
      state.request = undefined;
    return landed;
  }

  /** A request of the source; null when it cannot make one. What is temporary is thrown, to be tried again. */
  async #ask(state: FileState, signal: AbortSignal): Promise<DirectRequest | null> {
    try {
      return (await this.#options.source.direct?.(state.file, signal)) ?? null;
    } catch (thrown) {
      state.request = undefined;
      signal.throwIfAborted();
      if (thrown instanceof SourceError && thrown.retry === "range") throw thrown;
      // Its own client says better what is wrong.
      return null;
    }
  }

  #open(engine: DirectEngine, { path, sizeBytes, ...file }: SourceFile): number {
    const onDisk = this.#options.onDisk.filter((range) => range.file.path === path);
    return engine.open({
      path: join(this.#options.work, path),
      sizeBytes,
      algorithm: expectedSum({ path, sizeBytes, ...file })?.algorithm ?? null,
      onDisk: onDisk.map(({ start, end }) => [start, end] as const),
    });
  }

  /** Throws what is to be tried again or cannot be helped. */
  #conclude(state: FileState, { outcome }: Landed): void {
    const { source, width } = this.#options;
    const { uri } = source;
    switch (outcome.kind) {
      case "done":
        return;
      case "unfit":
        return this.#fallBack(state, outcome.reason);
      case "replaced":
        throw replaced(uri, state.file.path);
      case "disk":
        throw Object.assign(new Error(outcome.message), { code: outcome.code });
      case "broken":
        throw failed(uri, outcome.what);
      case "status": {
        const { status, retryAfterSeconds } = outcome;
        if (!temporary(status)) return this.#fallBack(state, "refused");
        if (status === 429 || status === 503) width.shrink();
        throw statusError({ uri, status, remedy: "", retryAfterSeconds: retryAfterSeconds ?? undefined });
      }
    }
  }

  #fallBack(state: FileState, reason: FallbackReason): void {
    if (state.reason !== undefined) return;
    state.reason = reason;
    this.#options.onFallback(state.file, reason);
  }
}
