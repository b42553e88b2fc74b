import { parseRequest } from "../../contracts/validate.ts";
import { editBody, type EditedBody } from "./edit-body.ts";
import { endpointOf, type EndpointPath } from "./endpoints.ts";
import { refuseRemoteUrls } from "./remote-urls.ts";
import { readWhole, skimJson } from "./skim-json.ts";

/** A request for an engine whose JSON body was read and checked. */
export interface JsonCall {
  /** As the client named it: a model, an alias, or `base:adapter`. */
  readonly model: string;
  /** Whether the answer is a stream of server-sent events. */
  readonly streams: boolean;
  /** The body as it goes to the engine: the client's own bytes, but for what metering had to add. */
  readonly body: EditedBody;
  /** What the client's body says, for stages that need more of it; unknown fields included. Skimmed unless asked for whole. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** Bytes of pictures and sounds that `fields` lacks. */
  readonly cutDataBytes: number;
  /** The client did not ask for the usage that the engine will tell, so it must not see the event that holds it. */
  readonly hidesUsage: boolean;
}

/** How a body is read. */
export interface ReadHow {
  /** Hosts that the engine may fetch something from. */
  readonly allowedHosts: readonly string[];
  /** Whether `fields` shall have long strings whole. */
  readonly whole: boolean;
}

/**
 * Reads a JSON body and checks it against its endpoint's schema: fields with a wrong type are refused, unknown fields
 * pass through. Throws `invalid_json`, `missing_field` or `invalid_value`, the last two with `param`.
 */
export function readJsonCall(path: EndpointPath, bytes: Buffer, { allowedHosts, whole }: ReadHow): JsonCall {
  const endpoint = endpointOf(path);
  if (endpoint.body !== "json") throw new Error(`${path} takes a form`);
  const { value, cutDataBytes } = whole ? readWhole(bytes) : skimJson(bytes);
  const fields = parseRequest(endpoint.schema, value);
  if (!isRecord(fields) || typeof fields["model"] !== "string") throw new Error(`the schema of ${path} lacks a model`);
  refuseRemoteUrls(fields, allowedHosts);
  const { model, stream_options: streamOptions } = fields;
  const streams = (endpoint.streams && fields["stream"] === true) || fields["stream_format"] === "sse";
  const options = isRecord(streamOptions) ? streamOptions : {};
  const hidesUsage = streams && endpoint.usage === "on-request" && options["include_usage"] !== true;
  const changes = hidesUsage ? { stream_options: { ...options, include_usage: true } } : {};
  return { model, streams, body: editBody(bytes, fields, changes), fields, cutDataBytes, hidesUsage };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
