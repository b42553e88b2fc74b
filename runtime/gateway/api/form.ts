import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { PenstockError } from "../../contracts/errors.ts";
import { parseRequest } from "../../contracts/validate.ts";
import { endpointOf, type EndpointPath } from "./endpoints.ts";
import { boundaryOf, FormWatcher } from "./multipart.ts";

/** Bounds of an upload. */
export interface UploadBounds {
  /** The whole form. */
  readonly maxBytes: number;
  /** What is kept in memory while the field `model` has not come. */
  readonly maxSpoolBytes: number;
}

/** A request for an engine whose body is a form that streams through. */
export interface FormCall {
  readonly model: string;
  readonly streams: boolean;
  /** Fields in front of the file. */
  readonly fields: Readonly<Record<string, string>>;
  /** Bytes that were read to find the model; they are the beginning of `body`. */
  readonly spooledBytes: number;
  /**
   * The client's own bytes, read only as fast as the upstream takes them. It can be sent once. It fails with an error of
   * the table when the rest of the form is not well formed, is too large, or names a second model.
   */
  readonly body: Readable;
}

/** Fields of a form are a few words each, and a prompt. */
const formBounds = { fieldsBytes: 64 * 1024, parts: 64 } as const;

/**
 * Reads a form just as far as its field `model`; the rest waits in the socket until `body` is read.
 * Throws `invalid_value`, `missing_field`, `body_too_large` or `client_closed`.
 */
export async function readFormCall(
  path: EndpointPath,
  incoming: IncomingMessage,
  bounds: UploadBounds,
): Promise<FormCall> {
  const watcher = new FormWatcher(boundaryOf(incoming.headers["content-type"]), formBounds);
  if (Number(incoming.headers["content-length"] ?? 0) > bounds.maxBytes) throw tooLarge(bounds);
  const chunks = watched(incoming, watcher, bounds);
  const spool: Buffer[] = [];
  let spooledBytes = 0;
  while (!watcher.fields.has("model")) {
    const next = await chunks.next();
    if (next.done === true) break;
    spool.push(next.value);
    spooledBytes += next.value.length;
    if (spooledBytes > bounds.maxSpoolBytes && !watcher.fields.has("model")) {
      throw new PenstockError(
        "invalid_value",
        `The field \`model\` has not come within ${bounds.maxSpoolBytes} bytes; send it before the file.`,
        { param: "model" },
      );
    }
  }
  const fields = Object.fromEntries(watcher.fields);
  parseRequest(endpointOf(path).schema, fields);
  const model = watcher.fields.get("model") ?? "";
  const streams = endpointOf(path).streams && /^(true|1)$/i.test(watcher.fields.get("stream") ?? "");
  return { model, streams, fields, spooledBytes, body: Readable.from(replay(spool, chunks), { objectMode: false }) };
}

async function* replay(spool: Buffer[], chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for (let chunk = spool.shift(); chunk !== undefined; chunk = spool.shift()) yield chunk;
  yield* chunks;
}

/** The body's bytes, each chunk once it was looked at. */
async function* watched(
  incoming: IncomingMessage,
  watcher: FormWatcher,
  bounds: UploadBounds,
): AsyncGenerator<Buffer, void> {
  let size = 0;
  try {
    // The socket must outlive a failed upload: the answer goes out on it.
    for await (const chunk of incoming.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > bounds.maxBytes) throw tooLarge(bounds);
      watcher.write(chunk);
      yield chunk;
    }
  } catch (cause) {
    if (cause instanceof PenstockError) throw cause;
    throw new PenstockError("client_closed", "The client left before its request was complete.", { cause });
  }
  if (!watcher.ended) {
    throw new PenstockError("invalid_value", "The form cannot be read: it ends before its last boundary.");
  }
}

function tooLarge({ maxBytes }: UploadBounds): PenstockError {
  return new PenstockError("body_too_large", `The form is larger than the limit of ${maxBytes} bytes; send less.`);
}
