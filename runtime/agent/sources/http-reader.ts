import { Agent, request, type Dispatcher } from "undici";
import { failed, replaced, SourceError, statusError, toSourceError, unusable } from "./errors.ts";
import type { DirectRequest, ReadRange } from "./source.ts";

/** What a server says about a file. */
export interface HttpFacts {
  readonly sizeBytes: number;
  readonly etag: string | null;
  readonly ranges: boolean;
}

/** A file that an HTTP server has. */
export interface HttpFile {
  /** The source's URI, for messages. */
  readonly uri: string;
  readonly url: URL;
  /** Sent to the origin of `url` only, never across a redirect to another. */
  readonly credentials: Readonly<Record<string, string>>;
  /** Sentence that names the credential to set when the server refuses. */
  readonly remedy: string;
}

/** What was asked for. */
interface Wanted {
  readonly facts: HttpFacts;
  readonly start: number;
  readonly end: number;
}

const maxRedirects = 5;

/** Idle sockets hold no process open. Connections are bounded by the download, not here. */
const dispatcher = new Agent({
  connect: { timeout: 10_000 },
  headersTimeout: 30_000,
  bodyTimeout: 60_000,
  keepAliveTimeout: 10_000,
  pipelining: 1,
});

type Answer = Dispatcher.ResponseData;

/** Where redirects led, and what is there. */
interface Found {
  readonly url: URL;
  readonly answer: Answer;
  readonly hops: number;
}

/** Reads one file over HTTP by ranges, and notices when it is replaced meanwhile. */
export class HttpReader {
  readonly #file: HttpFile;
  /** Where redirects led, so that a hub is not asked for each of thousands of ranges. */
  #located: URL | undefined;

  constructor(file: HttpFile) {
    this.#file = file;
  }

  /** Size, ETag and range support, by asking for the first byte: signed links often allow GET but not HEAD. */
  async probe(signal: AbortSignal): Promise<HttpFacts> {
    try {
      const answer = await this.#get({ range: "bytes=0-0" }, signal);
      const { statusCode, headers } = answer;
      // Reading on would fetch the whole file from a server without ranges.
      if (statusCode === 206) await answer.body.dump();
      else answer.body.on("error", () => undefined).destroy();
      const etag = header(headers, "etag") ?? header(headers, "last-modified") ?? null;
      const total = /\/(\d+)$/.exec(header(headers, "content-range") ?? "")?.[1];
      if ((statusCode === 206 || statusCode === 416) && total !== undefined) {
        return { sizeBytes: sizeOf(total, this.#file.uri), etag, ranges: true };
      }
      if (statusCode >= 300) throw this.#refusal(answer);
      return { sizeBytes: sizeOf(header(headers, "content-length"), this.#file.uri), etag, ranges: false };
    } catch (thrown) {
      throw toSourceError(thrown, { uri: this.#file.uri, signal });
    }
  }

  /** The bytes of a part. `facts` is what `probe` said (or the store's own list); `etag` null skips that comparison. */
  async *read(facts: HttpFacts, { start, end, signal }: ReadRange): AsyncGenerator<Uint8Array> {
    const { uri, url } = this.#file;
    try {
      const wanted: Record<string, string> = {};
      if (facts.ranges) Object.assign(wanted, { range: `bytes=${start}-${end - 1}` }, ifRange(facts.etag));
      const answer = await this.#get(wanted, signal);
      const problem = this.#check(answer, { facts, start, end });
      if (problem !== undefined) {
        answer.body.on("error", () => undefined).destroy();
        throw problem;
      }
      yield* answer.body as AsyncIterable<Uint8Array>; // without an encoding set, chunks are buffers
    } catch (thrown) {
      if (thrown instanceof SourceError && thrown.retry === "start_over") throw replaced(uri, url.pathname);
      throw toSourceError(thrown, { uri, signal });
    }
  }

  /** A request to where redirects lead now. Credentials are in it only when that is the first origin still. */
  async locate({ etag }: HttpFacts, signal: AbortSignal): Promise<DirectRequest> {
    try {
      const { url, answer } = await this.#follow({ range: "bytes=0-0" }, signal);
      answer.body.on("error", () => undefined).destroy();
      if (answer.statusCode >= 300) throw this.#refusal(answer);
      return { url, headers: { ...this.#credentialsFor(url), ...ifRange(etag) }, etag };
    } catch (thrown) {
      throw toSourceError(thrown, { uri: this.#file.uri, signal });
    }
  }

  #check(answer: Answer, { facts, start, end }: Wanted): SourceError | undefined {
    const { statusCode, headers } = answer;
    const { uri, url } = this.#file;
    const gone = replaced(uri, url.pathname);
    if (statusCode === 412 || statusCode === 416) return gone;
    if (statusCode !== 200 && statusCode !== 206) return this.#refusal(answer);
    if ((header(headers, "content-encoding") ?? "identity") !== "identity") {
      return unusable(uri, "The server compresses the file on the way; turn that off for it.");
    }
    const etag = header(headers, "etag") ?? header(headers, "last-modified");
    if (facts.etag !== null && etag !== undefined && etag !== facts.etag) return gone;
    if (statusCode === 200) {
      // A server that has ranges answers the whole file when If-Range does not match any more. Where the whole file was
      // asked for, that is as good.
      if (facts.ranges && (start > 0 || end < facts.sizeBytes)) return gone;
      const length = header(headers, "content-length");
      return length === undefined || Number(length) === facts.sizeBytes ? undefined : gone;
    }
    const [, from, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(header(headers, "content-range") ?? "") ?? [];
    if (Number(from) !== start) return failed(uri, "the server sent another range than was asked for");
    return total === "*" || Number(total) === facts.sizeBytes ? undefined : gone;
  }

  #refusal({ statusCode, headers }: Answer): SourceError {
    const wait = Number(header(headers, "retry-after"));
    return statusError({
      uri: this.#file.uri,
      status: statusCode,
      remedy: this.#file.remedy,
      retryAfterSeconds: Number.isFinite(wait) && wait > 0 ? wait : undefined,
    });
  }

  async #get(headers: Record<string, string>, signal: AbortSignal): Promise<Answer> {
    const located = this.#located;
    if (located !== undefined) {
      const answer = await this.#send(located, { headers, signal });
      // The place behind a redirect is often a link that expires; then the first address gives a new one.
      if (![301, 302, 303, 307, 308, 401, 403, 404, 410].includes(answer.statusCode)) return answer;
      await answer.body.dump();
      this.#located = undefined;
    }
    const { url, answer, hops } = await this.#follow(headers, signal);
    if (hops > 0) this.#located = url;
    return answer;
  }

  async #follow(headers: Record<string, string>, signal: AbortSignal): Promise<Found> {
    let { url } = this.#file;
    for (let hop = 0; hop <= maxRedirects; hop += 1) {
      const answer = await this.#send(url, { headers, signal });
      const location = header(answer.headers, "location");
      if (![301, 302, 303, 307, 308].includes(answer.statusCode) || location === undefined) {
        return { url, answer, hops: hop };
      }
      await answer.body.dump();
      url = this.#next(url, location);
    }
    throw unusable(this.#file.uri, `It redirects more than ${maxRedirects} times; name the last address.`);
  }

  #next(from: URL, location: string): URL {
    const next = URL.parse(location, from.href);
    const downgrade = from.protocol === "https:" && next?.protocol !== "https:";
    if (next === null || downgrade || !["http:", "https:"].includes(next.protocol)) {
      throw unusable(this.#file.uri, "It redirects from https to something else; name the last address.");
    }
    return next;
  }

  #send(url: URL, { headers, signal }: { headers: Record<string, string>; signal: AbortSignal }): Promise<Answer> {
    return request(url, {
      dispatcher,
      headers: {
        "accept-encoding": "identity",
        "user-agent": "penstock",
        ...headers,
        ...this.#credentialsFor(url),
      },
      signal,
    });
  }

  #credentialsFor(url: URL): Readonly<Record<string, string>> {
    return url.origin === this.#file.url.origin ? this.#file.credentials : {};
  }
}

/** A weak ETag promises no equal bytes, so If-Range must not carry it (RFC 9110, 13.1.5). */
function ifRange(etag: string | null): Record<string, string> {
  return etag === null || etag.startsWith("W/") ? {} : { "if-range": etag };
}

function header(headers: Answer["headers"], name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}

function sizeOf(text: string | undefined, uri: string): number {
  const size = text === undefined ? Number.NaN : Number(text);
  if (Number.isSafeInteger(size) && size >= 0) return size;
  throw unusable(uri, "The server does not tell the file's length; serve it as a plain file.");
}
