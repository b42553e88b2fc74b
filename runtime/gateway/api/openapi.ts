import { z } from "zod";
import { endpointOf, endpointPaths, type EndpointPath } from "./endpoints.ts";
import { examples } from "./examples.ts";

/** A piece of JSON Schema, as far as the reference page looks into one. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/** A path of the document and one method of it. */
export interface Operation {
  readonly summary: string;
  readonly description?: string;
  readonly operationId: string;
  readonly tags: readonly string[];
  readonly security?: readonly object[];
  readonly parameters?: readonly object[];
  readonly requestBody?: {
    readonly required: true;
    readonly content: Readonly<Record<string, { readonly schema: JsonSchema; readonly example: unknown }>>;
  };
  readonly responses: Readonly<Record<string, object>>;
}

/** An OpenAPI 3.1 document. */
export interface OpenApiDocument {
  readonly openapi: "3.1.0";
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly servers: readonly { readonly url: string }[];
  readonly security: readonly object[];
  readonly paths: Readonly<Record<string, { readonly get?: Operation; readonly post?: Operation }>>;
  readonly components: { readonly schemas: Readonly<Record<string, object>>; readonly securitySchemes: object };
}

const errorRef = { "application/json": { schema: { $ref: "#/components/schemas/Error" } } };

/** What any endpoint of an engine may answer instead. */
const refusals = {
  "400": { description: "The request is wrong; `param` names the field.", content: errorRef },
  "401": { description: "The key is missing or not valid.", content: errorRef },
  "403": { description: "The key may not use this model.", content: errorRef },
  "404": { description: "There is no such model.", content: errorRef },
  "413": { description: "The body is too large.", content: errorRef },
  "429": { description: "A limit is reached; `Retry-After` says when to try again.", content: errorRef },
  "502": { description: "The model's engine failed.", content: errorRef },
  "503": { description: "The model is not ready; `Retry-After` says when to try again.", content: errorRef },
  "504": { description: "The model took too long.", content: errorRef },
} as const;

/** Endpoints that the gateway answers itself. */
const own = {
  "/v1/models": read("Models and adapters that the key may use.", "models"),
  "/v1/models/{id}": {
    ...read("One model, and where its weights are.", "models"),
    parameters: [{ name: "id", in: "path", required: true, schema: { type: "string" } }],
  },
  "/health": { ...read("Whether the gateway runs.", "operation"), security: [] },
  "/ready": { ...read("Whether the gateway takes requests: 200 or 503.", "operation"), security: [] },
  "/stats": read("Replicas and held requests, for people.", "operation"),
  "/metrics": read("Metrics for Prometheus.", "operation", "text/plain"),
} satisfies Record<string, Operation>;

/** The document of the whole API, made from the endpoint table. */
export function openApiDocument(version: string): OpenApiDocument {
  return {
    openapi: "3.1.0",
    info: {
      title: "Penstock gateway",
      version,
      description:
        "OpenAI's API, and Anthropic's messages, for models that run on machines of your own. " +
        "Fields that are not listed pass through to the engine.",
    },
    servers: [{ url: "/" }],
    security: [{ bearer: [] }],
    paths: {
      ...Object.fromEntries(endpointPaths.map((path) => [path, { post: operationOf(path) }])),
      ...Object.fromEntries(Object.entries(own).map(([path, get]) => [path, { get: named(path, get) }])),
    },
    components: {
      schemas: { Error: errorSchema, AnthropicError: anthropicErrorSchema },
      securitySchemes: {
        bearer: {
          type: "http",
          scheme: "bearer",
          description: "An API key. Anthropic's clients send it as `x-api-key`.",
        },
      },
    },
  };
}

function operationOf(path: EndpointPath): Operation {
  const endpoint = endpointOf(path);
  const { $schema: _, ...schema } = z.toJSONSchema(endpoint.schema, { io: "input" });
  const isForm = endpoint.body === "multipart";
  const json = { "application/json": { schema: { type: "object" } } };
  const stream = { "text/event-stream": { schema: { type: "string" } } };
  const sound = { "audio/*": { schema: { type: "string", format: "binary" } } };
  const answer = endpoint.task === "speech" ? sound : { ...json, ...(endpoint.streams ? stream : {}) };
  return named(path, {
    summary: endpoint.summary,
    ...(endpoint.streams ? { description: "With `stream: true` the answer is a stream of server-sent events." } : {}),
    operationId: "",
    tags: [endpoint.task],
    requestBody: {
      required: true,
      content: {
        [isForm ? "multipart/form-data" : "application/json"]: {
          schema: isForm ? withFile(schema) : schema,
          example: examples[path],
        },
      },
    },
    responses: {
      "200": { description: "The engine's answer, unchanged.", content: answer },
      ...(endpoint.errors === "anthropic" ? anthropicRefusals() : refusals),
    },
  });
}

function named(path: string, operation: Operation): Operation {
  return {
    ...operation,
    operationId: path
      .replace(/^\/(v1\/)?/, "")
      .replaceAll(/[^a-z]+/gi, "_")
      .replace(/_$/, ""),
  };
}

function read(summary: string, tag: string, type = "application/json"): Operation {
  const content = { [type]: { schema: { type: type === "text/plain" ? "string" : "object" } } };
  return { summary, operationId: "", tags: [tag], responses: { "200": { description: "The answer.", content } } };
}

function withFile(schema: JsonSchema): JsonSchema {
  const { properties, required } = schema;
  return {
    ...schema,
    properties: { ...(properties as object), file: { type: "string", format: "binary" } }, // zod's own, of an object
    required: [...(required as string[]), "file"], // zod's own, of a schema with a required field
  };
}

function anthropicRefusals(): Record<string, object> {
  const content = { "application/json": { schema: { $ref: "#/components/schemas/AnthropicError" } } };
  return Object.fromEntries(Object.entries(refusals).map(([status, refusal]) => [status, { ...refusal, content }]));
}

const errorSchema = {
  type: "object",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      required: ["message", "type", "code", "param"],
      properties: {
        message: { type: "string" },
        type: { type: "string" },
        code: { type: "string" },
        param: { type: ["string", "null"] },
      },
    },
  },
} as const;

const anthropicErrorSchema = {
  type: "object",
  required: ["type", "error"],
  properties: {
    type: { const: "error" },
    error: {
      type: "object",
      required: ["type", "message"],
      properties: { type: { type: "string" }, message: { type: "string" } },
    },
  },
} as const;
