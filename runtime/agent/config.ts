import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { idlePolicy } from "../contracts/agent.ts";
import { engineSpec, type EngineKind } from "../contracts/engine.ts";
import { PenstockError } from "../contracts/errors.ts";
import { modelSpec } from "../contracts/model.ts";
import { defaultPorts } from "../contracts/names.ts";
import { problemLines } from "../contracts/validate.ts";
import { logLevels } from "../lib/log.ts";

const command = z.tuple([z.string().min(1)], z.string());
const gib = z.number().positive().max(1_000_000);

/** An agent's config file. Every field has a default; an unknown one is an error. */
export const agentConfig = z.strictObject({
  /** Name in heartbeats and logs. */
  agentId: z.string().min(1).max(200).default(hostname()),
  host: z.string().min(1).default("127.0.0.1"),
  port: z.int().min(0).max(65_535).default(defaultPorts.agent),
  cache: z
    .strictObject({
      directory: z.string().min(1).default(".penstock/cache"),
      /** Bytes of models on disk are never more; without it the disk is the limit. */
      budgetGiB: gib.optional(),
      /** Of the disk, for everything else. */
      reserveGiB: z.number().min(0).max(1_000_000).optional(),
      /** Models that nobody used for longer are removed. */
      ttlHours: z.number().positive().optional(),
    })
    .prefault({}),
  /** What engines write: logs, compiled kernels. Not shared with another agent. */
  stateDirectory: z.string().min(1).default(".penstock/agent"),
  drainSeconds: z.number().min(0).max(86_400).default(60),
  /** How long an engine may take to become ready. */
  readySeconds: z.number().positive().max(86_400).default(1_200),
  stopSeconds: z.number().positive().max(3_600).default(30),
  /** Programs in place of `vllm`, `llama-server` and so on: `vllm: [/opt/vllm/bin/vllm]`. */
  engineCommands: z
    .strictObject({
      embedded: command.optional(),
      llamacpp: command.optional(),
      vllm: command.optional(),
      triton: command.optional(),
      trtllm: command.optional(),
    } satisfies Record<EngineKind, unknown>)
    .default({}),
  /** Whose notices of a spot reclaim to listen to. */
  reclaim: z.enum(["auto", "aws", "azure", "none"]).default("auto"),
  /** Stores that are not the public ones. */
  stores: z
    .strictObject({
      s3: z
        .strictObject({
          endpoint: z.url().optional(),
          region: z.string().optional(),
          pathStyle: z.boolean().optional(),
        })
        .optional(),
      azure: z.strictObject({ endpoint: z.url().optional(), anonymous: z.boolean().optional() }).optional(),
    })
    .default({}),
  /** Models to fetch as soon as the node joins, in order, in the background. */
  prefetch: z.array(modelSpec).default([]),
  /** Models to bring up at once. */
  serve: z
    .array(
      z.strictObject({
        model: modelSpec,
        engine: engineSpec,
        idle: idlePolicy.optional(),
        pinned: z.boolean().optional(),
      }),
    )
    .default([]),
  logLevel: z.enum(logLevels).default("info"),
});

export type AgentConfig = z.infer<typeof agentConfig>;

/** Reads a config file in YAML (or JSON). Throws `invalid_config` that names every problem at once. */
export async function readConfig(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw new PenstockError("invalid_config", `--config: ${path} cannot be read.`, { cause });
  }
  try {
    return parse(text) ?? {};
  } catch (cause) {
    const where = cause instanceof Error ? cause.message.split("\n")[0] : "";
    throw new PenstockError("invalid_config", `${path} is not YAML: ${where}`, { cause });
  }
}

/** Checks a config. Throws `invalid_config` that names every problem at once. */
export function checkConfig(raw: unknown): AgentConfig {
  const parsed = agentConfig.safeParse(raw);
  if (!parsed.success) throw new PenstockError("invalid_config", problemLines(parsed.error).join("\n"));
  const { cache, stateDirectory, ...config } = parsed.data;
  return {
    ...config,
    cache: { ...cache, directory: resolve(cache.directory) },
    stateDirectory: resolve(stateDirectory),
  };
}
