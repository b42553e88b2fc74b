import { parseJson, parseRequest } from "../../contracts/validate.ts";
import { editBody } from "./edit-body.ts";
import { endpointOf, type EndpointPath } from "./endpoints.ts";
import { refuseRemoteUrls } from "./remote-urls.ts";

/** A request for an engine whose JSON body was read and checked. */
export interface JsonCall {
  /** As the client named it: a model, an alias, or `base:adapter`. */
  readonly model: string;
  /** Whether the answer is a stream of server-sent events. */
  readonly streams: boolean;
  /** The body as it goes to the engine: the client's own bytes, but for what metering had to add. */
  readonly body: Buffer;
  /** What the client's body says, for stages that need more of it; unknown fields included. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** The client did not ask for the usage that the engine will tell, so it must not see the event that holds it. */
  readonly hidesUsage: boolean;
}

/**
 * Reads a JSON body and checks it against its endpoint's schema: fields with a wrong type are refused, unknown fields
 * pass through. Throws `invalid_json`, `missing_field` or `invalid_value`, the last two with `param`.
 */
export function readJsonCall(path: EndpointPath, bytes: Buffer, allowedHosts: readonly string[]): JsonCall {
  const endpoint = endpointOf(path);
  if (endpoint.body !== "json") throw new Error(`${path} takes a form`);
  const fields = parseRequest(endpoint.schema, parseJson(bytes));
  if (!isRecord(fields) || typeof fields["model"] !== "string") throw new Error(`the schema of ${path} lacks a model`);
  refuseRemoteUrls(fields, allowedHosts);
  const { model, stream_options: streamOptions } = fields;
  const streams = (endpoint.streams && fields["stream"] === true) || fields["stream_format"] === "sse";
  const options = isRecord(streamOptions) ? streamOptions : {};
  const hidesUsage = streams && endpoint.usage === "on-request" && options["include_usage"] !== true;
  const body = hidesUsage ? editBody(bytes, fields, { stream_options: { ...options, include_usage: true } }) : bytes;
  return { model, streams, body, fields, hidesUsage };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
