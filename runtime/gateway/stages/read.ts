import type { IncomingMessage } from "node:http";
import { PenstockError } from "../../contracts/errors.ts";
import { editedLength, LongBody, readLongBody, SentBody, type Edit, type RelayBody } from "../../lib/long-body.ts";
import { readJsonCall, type JsonCall } from "../api/call.ts";
import { applied, renameModel, type EditedBody } from "../api/edit-body.ts";
import { endpointOf, type EndpointPath } from "../api/endpoints.ts";
import { readFormCall } from "../api/form.ts";
import { blockBytes, hashName, prefixHashes } from "../routing/prefix-hash.ts";

/** A request whose body was read as far as it must be, and checked. */
export interface ReadRequest {
  /** As the client named it: a model, an alias, or `base:adapter`. */
  readonly model: string;
  /** Whether the answer is a stream of server-sent events. */
  readonly streams: boolean;
  /** What goes to the engine, when it shall be told `engineModel`. A stream can be sent once. */
  body(engineModel: string): RelayBody;
  /** It will not be sent any more: its memory is for others. */
  release(): void;
  /** It can be sent again: a body in memory, not an upload that streams through. */
  readonly isWhole: boolean;
  /** What the JSON body says, for hooks; null for a form, and where it was not to be kept. */
  readonly fields: Readonly<Record<string, unknown>> | null;
  /** Bytes that the gateway keeps of it. */
  readonly bytes: number;
  readonly hidesUsage: boolean;
  /** From above, in tokens: four bytes are one, as everywhere in this gateway. */
  readonly promptTokens: number;
  /** What the client allows the answer to be; undefined when it says nothing. */
  readonly maxTokens: number | undefined;
  /** Names the conversation for policies that keep one together; null when the client says nothing. */
  readonly sessionKey: string | null;
  /** Whether the same body gets the same answer: nothing is sampled, and nothing outside of the body counts. */
  readonly isDeterministic: boolean;
  /** Hashes of the prompt's blocks; computed when asked for. `seed` keeps apart what shares no cache. */
  prefix(seed: string): Uint32Array;
}

/** Bounds of a body. */
export interface ReadBounds {
  readonly maxBodyBytes: number;
  /** Hosts that images and files of a request may be fetched from by the engine. */
  readonly allowedHosts: readonly string[];
}

/** Tokens that an image is taken for: a tile or two of today's vision models. */
const imageTokens = 1_500;

/** What is kept of an upload in memory while its `model` has not come: clients that send a sound file first are many. */
const maxSpoolBytes = 4 * 2 ** 20;

/** Forms carry sound files, which are larger than prompts. */
const uploadFactor = 8;

/** Of what is shorter than a block. */
const noBlocks = new Uint32Array(0);

/** Header of clients that have no field for their conversation. */
const sessionHeader = "x-session-id";

/** What is read, within what bounds, and whether what the body says is kept beside it. */
export interface ReadFrom {
  readonly incoming: IncomingMessage;
  readonly bounds: ReadBounds;
  /**
   * For hooks alone: the body is then parsed whole. A prompt of 220 KB takes as much again, and is moved by collections of
   * garbage that hold up everybody for tens of milliseconds.
   */
  readonly keepsFields: boolean;
}

/** Reads and checks the body. Throws errors of the table with `param`. */
export async function readRequest(path: EndpointPath, from: ReadFrom): Promise<ReadRequest> {
  const { incoming, bounds } = from;
  if (endpointOf(path).body === "multipart") return readForm(path, incoming, bounds);
  const body = await readLongBody(incoming, bounds.maxBodyBytes);
  try {
    return readJson(path, body, from);
  } catch (thrown) {
    releaseOf(body);
    throw thrown;
  }
}

/** Checks a body that was changed here as if the client had sent it. Throws as `readRequest` does. */
export function readAgain(path: EndpointPath, body: Readonly<Record<string, unknown>>, from: ReadFrom): ReadRequest {
  const bytes = Buffer.from(JSON.stringify(body));
  if (bytes.length > from.bounds.maxBodyBytes) {
    throw new PenstockError("body_too_large", `A hook made the body larger than ${from.bounds.maxBodyBytes} bytes.`);
  }
  return readJson(path, bytes, from);
}

function readJson(path: EndpointPath, body: Buffer | LongBody, from: ReadFrom): ReadRequest {
  const { incoming, bounds, keepsFields } = from;
  const call = readJsonCall(path, bytesOf(body), { allowedHosts: bounds.allowedHosts, whole: keepsFields });
  const { fields, cutDataBytes } = call;
  return new JsonRequest(body, call, {
    fields: keepsFields ? fields : null,
    promptTokens:
      endpointOf(path).usage === "never"
        ? 0
        : promptTokensOf(editedLength(call.body.bytes.length, call.body.edits) - cutDataBytes, fields),
    maxTokens: maxTokensOf(path, fields),
    sessionKey: text(fields["prompt_cache_key"]) ?? text(fields["user"]) ?? text(incoming.headers[sessionHeader]),
    isDeterministic: isDeterministic(path, fields),
  });
}

/** What is kept of a JSON body beside its bytes. No function in it, which would keep what was parsed. */
class JsonRequest implements ReadRequest {
  readonly model: string;
  readonly streams: boolean;
  readonly hidesUsage: boolean;
  readonly isWhole = true;
  readonly fields: ReadRequest["fields"];
  readonly promptTokens: number;
  readonly maxTokens: number | undefined;
  readonly sessionKey: string | null;
  readonly isDeterministic: boolean;
  readonly #body: Buffer | LongBody;
  readonly #edits: readonly Edit[];

  constructor(
    body: Buffer | LongBody,
    call: JsonCall,
    told: Pick<ReadRequest, "fields" | "promptTokens" | "maxTokens" | "sessionKey" | "isDeterministic">,
  ) {
    this.model = call.model;
    this.streams = call.streams;
    this.hidesUsage = call.hidesUsage;
    const isTheirs = call.body.bytes === bytesOf(body);
    if (!isTheirs) releaseOf(body);
    this.#body = isTheirs ? body : call.body.bytes;
    this.#edits = call.body.edits;
    this.fields = told.fields;
    this.promptTokens = told.promptTokens;
    this.maxTokens = told.maxTokens;
    this.sessionKey = told.sessionKey;
    this.isDeterministic = told.isDeterministic;
  }

  get bytes(): number {
    return editedLength(this.#body.length, this.#edits);
  }

  body(engineModel: string): RelayBody {
    const body: EditedBody = { bytes: bytesOf(this.#body), edits: this.#edits };
    const told = engineModel === this.model ? body : renameModel(body, this.model, engineModel);
    const isLong = this.#body instanceof LongBody && told.bytes === body.bytes;
    return isLong ? new SentBody(this.#body, told.edits) : applied(told);
  }

  prefix(seed: string): Uint32Array {
    return this.bytes < blockBytes ? noBlocks : prefixHashes(promptOf(bytesOf(this.#body)), hashName(seed));
  }

  release(): void {
    releaseOf(this.#body);
  }
}

function bytesOf(body: Buffer | LongBody): Buffer {
  return body instanceof LongBody ? body.bytes : body;
}

function releaseOf(body: Buffer | LongBody): void {
  if (body instanceof LongBody) body.release();
}

async function readForm(path: EndpointPath, incoming: IncomingMessage, bounds: ReadBounds): Promise<ReadRequest> {
  const call = await readFormCall(path, incoming, { maxBytes: bounds.maxBodyBytes * uploadFactor, maxSpoolBytes });
  return {
    model: call.model,
    streams: call.streams,
    hidesUsage: false,
    // A form streams through unread, so its engine is told the name that the client wrote.
    body: () => call.body,
    isWhole: false,
    fields: null,
    bytes: call.spooledBytes,
    promptTokens: 0,
    maxTokens: 0,
    sessionKey: null,
    isDeterministic: false,
    prefix: () => noBlocks,
    release: () => undefined,
  };
}

/** The part of a body in which prompts begin alike: what comes before differs from request to request. */
function promptOf(body: Buffer): Buffer {
  for (const field of ['"messages"', '"prompt"', '"input"']) {
    const at = body.indexOf(field);
    if (at !== -1) return body.subarray(at);
  }
  return body;
}

function promptTokensOf(bytes: number, fields: Readonly<Record<string, unknown>>): number {
  // Pictures in base64 are no tokens of four bytes. Found in what was parsed: to search the bytes takes as long as to hash.
  const pictures = { count: 0, length: 0 };
  countPictures(fields, pictures, 0);
  return Math.ceil((bytes - pictures.length) / 4) + pictures.count * imageTokens;
}

/** No API has a `data:` address deeper than this. */
const maxDepth = 12;

/** Adds up the `data:` addresses in a value and their characters. */
function countPictures(value: unknown, into: { count: number; length: number }, depth: number): void {
  if (typeof value === "string") {
    if (!value.startsWith("data:")) return;
    into.count += 1;
    into.length += value.length;
  } else if (typeof value === "object" && value !== null && depth <= maxDepth) {
    if (Array.isArray(value)) for (const inner of value) countPictures(inner, into, depth + 1);
    else for (const key in value) countPictures((value as Readonly<Record<string, unknown>>)[key], into, depth + 1);
  }
}

function maxTokensOf(path: EndpointPath, fields: Readonly<Record<string, unknown>>): number | undefined {
  if (endpointOf(path).task !== "generate") return 0;
  const told = ["max_completion_tokens", "max_tokens", "max_output_tokens"].map((name) => fields[name]);
  const most = told.find((value) => typeof value === "number");
  const answers = typeof fields["n"] === "number" ? fields["n"] : 1;
  return typeof most === "number" ? most * answers : undefined;
}

function isDeterministic(path: EndpointPath, fields: Readonly<Record<string, unknown>>): boolean {
  const { task } = endpointOf(path);
  // Responses may go on from an earlier one, which the engine keeps.
  if (task === "generate") return path !== "/v1/responses" && fields["temperature"] === 0;
  return task === "embed" || task === "rerank" || task === "tokenize";
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value.slice(0, 512) : null;
}
