import { z } from "zod";
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { hookOptions } from "../../runtime/contracts/hooks.ts";
import { modelId, modelSpec } from "../../runtime/contracts/model.ts";
import { defaultPorts } from "../../runtime/contracts/names.ts";

/** Bounds of held requests. */
export const hold = z
  .strictObject({
    maxRequests: z.int().min(1).default(1000).describe("Requests that may wait at once."),
    maxMiB: z.number().positive().default(256).describe("Body bytes of waiting requests, together."),
    maxSeconds: z.number().positive().default(600).describe("A request that waits longer gets a 503 with Retry-After."),
  })
  .describe("Bounds of requests that wait while a model loads.");

const gateway = z
  .strictObject({
    host: z.string().min(1).default("127.0.0.1").describe("Address to listen on."),
    port: z.int().min(0).max(65535).default(defaultPorts.gateway).describe("Port to listen on; 0 takes a free one."),
    apiKey: z.string().min(12).max(256).describe("Key that clients send as `Authorization: Bearer <key>`."),
    maxBodyMiB: z.number().positive().default(32).describe("A request body above this is refused."),
    drainSeconds: z.number().min(0).default(30).describe("How long a stop waits for open requests."),
    hold: hold.prefault({}),
    hooks: z.array(hookOptions).max(32).default([]).describe("Plug-ins that see requests and answers, in this order."),
  })
  .describe("The OpenAI endpoint.");

const cache = z
  .strictObject({
    directory: z.string().min(1).optional().describe("Folder on fast local disk; default: `cache` in Penstock's home."),
  })
  .describe("Where an agent keeps model files.");

/** A model of any stack. */
export const stackModel = z
  .strictObject({
    ...modelSpec.shape,
    warm: z.boolean().default(false).describe("Load when the gateway starts instead of at the first request."),
  })
  .describe("A model: an id that clients name, and where its weights come from.");

/** Name of a fleet: it becomes part of Kubernetes names and of labels. */
export const itemName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,39}$/, "must be lower-case letters, digits and `-`, at most 40");

/** Name of a pool: with capacity and size behind it, it becomes the name of node pools. */
export const poolName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,19}$/, "must be lower-case letters, digits and `-`, at most 20");

const fleet = z
  .strictObject({
    name: itemName,
    engine: engineSpec,
    models: z.array(modelId).min(1).describe("Ids of models; with several, the gateway loads them on demand."),
  })
  .describe("Replicas of one engine that serve one or more models.");

/** One machine, started by `npm start`. */
export const localStack = z
  .strictObject({
    version: z.literal(1).describe("Version of this schema."),
    cloud: z.literal("local").describe("One machine, started by `npm start`."),
    gateway,
    cache: cache.prefault({}),
    models: z.array(stackModel).min(1),
    fleets: z.array(fleet).min(1),
  })
  .describe("One machine.");
