import { z } from "zod";
import { idlePolicy } from "../../runtime/contracts/agent.ts";
import { modelId } from "../../runtime/contracts/model.ts";
import { auto, cloudEngine } from "./engines.ts";
import { itemName, poolName } from "./local.ts";

const scaling = z
  .strictObject({
    targetRequests: z
      .number()
      .positive()
      .optional()
      .describe(
        "Requests per replica, queued and running, that one more replica is started above; default: planned from the KV cache.",
      ),
    cooldownSeconds: z
      .int()
      .min(30)
      .optional()
      .describe("Without requests this long, down to the minimum; default: planned from the start-up time."),
    schedule: z
      .array(
        z.strictObject({
          start: z.string().min(9).describe("Cron expression."),
          end: z.string().min(9).describe("Cron expression."),
          timezone: z.string().min(1).default("UTC"),
          replicas: z.int().min(1),
        }),
      )
      .default([])
      .describe("Floors by the clock, such as business hours."),
  })
  .describe("When replicas come and go.");

const seconds = z.number().positive().optional();

const transitions = z
  .strictObject({
    nodeSeconds: seconds.describe("From a pending pod to a node that is ready."),
    imageSeconds: seconds.describe("Pull of the image on a fresh node."),
    downloadSeconds: seconds.describe("Largest model, from the store to the node's disk."),
    loadSeconds: seconds.describe("Largest model, from the node's disk until the engine answers."),
    wakeSeconds: seconds.describe("Largest model, from asleep in RAM until the engine answers."),
  })
  .describe(
    "What was measured here (agents report it), in place of the catalogue's figures. Cooldowns follow from it.",
  );

/** A fleet of a stack on a cloud. */
export const fleet = z
  .strictObject({
    name: itemName,
    engine: cloudEngine,
    models: z.array(modelId).min(1).describe("Ids of models; with several, the gateway loads them on demand."),
    pool: poolName.optional().describe("The pool to run on; or `gpu: auto`."),
    gpu: auto.optional().describe("`auto`: the planner makes a pool of the cheapest size that fits."),
    replicas: z.strictObject({ min: z.int().min(0), max: z.int().min(1) }),
    contextTokens: z
      .int()
      .min(256)
      .optional()
      .describe("Longest prompt with its answer; default: the model's own, at most 32768."),
    concurrency: z
      .int()
      .min(1)
      .default(16)
      .describe("Requests per replica at that length that must fit in memory at once."),
    residentModels: z.int().min(1).optional().describe("Models that share one replica's GPUs at once; default: 1."),
    idle: idlePolicy.optional().describe("When a model that nobody asks for goes to sleep, or leaves the GPU."),
    scaling: scaling.prefault({}),
    transitions: transitions.prefault({}),
    drainSeconds: z
      .int()
      .min(30)
      .max(3600)
      .default(300)
      .describe("Longest that a stream may take when its node goes away."),
    spot: z
      .boolean()
      .default(false)
      .describe("May run on spot nodes: they can go with 30 s (Azure) or 2 min (AWS) of notice."),
  })
  .describe("Replicas of one engine that serve one or more models.");
