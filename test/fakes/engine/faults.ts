import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { profileNames } from "./cost.ts";

/** What goes wrong, on command. Absent means that it goes right. Times are real ms, whatever the simulated speed. */
export const faultsSchema = z.strictObject({
  /** Loads for ever. */
  never_ready: z.boolean().optional(),
  /** Prints that CUDA is out of memory and exits with 1 while it loads. */
  die_at_load: z.boolean().optional(),
  /** The same for the first n starts; a counter file remembers them. */
  die_at_load_times: z.int().min(0).optional(),
  slow_load_ms: z.number().min(0).optional(),
  /** Each adapter that is loaded at run time takes so long. */
  slow_adapter_load_ms: z.number().min(0).optional(),
  /** Takes connections and answers nothing, `/health` included. */
  hang: z.boolean().optional(),
  /** Multiplies the time of each step; nothing at speed 0. */
  slow_factor: z.number().positive().optional(),
  step_delay_ms: z.number().min(0).optional(),
  /** Kills itself when so many tokens have been generated since the start. */
  die_after_tokens: z.int().min(0).optional(),
  corrupt_after_wake: z.boolean().optional(),
  /** Computes nonsense from the second start on; a counter file remembers the first. */
  corrupt_after_restart: z.boolean().optional(),
  /** Adapters are silently ignored once the engine has slept. */
  lora_lost_after_wake: z.boolean().optional(),
  /** `/health` says 200 although every request fails; with `slow_load_ms` until the load has ended. */
  lie_ready: z.boolean().optional(),
  refuse_sleep: z.boolean().optional(),
  wake_fails: z.boolean().optional(),
  /** What `--version` and `/version` say. */
  wrong_version: z.string().max(200).optional(),
  ignore_sigterm: z.boolean().optional(),
  /** Writes log lines as fast as they are read. */
  flood_logs: z.boolean().optional(),
  /** Answers bytes that are not HTTP. */
  garbage_http: z.boolean().optional(),
});
export type Faults = z.infer<typeof faultsSchema>;

/** `sim.json`: the faults, and what the simulated model is like. */
export const settingsSchema = faultsSchema.extend({
  /** As `--sim-speed` and `--sim-profile`; the flags win. */
  speed: z.number().min(0).optional(),
  profile: z.enum(profileNames).optional(),
  streamInterval: z.int().min(1).optional(),
  oldMetrics: z.boolean().optional(),
  /** Series that the metrics page leaves out, by name. */
  omitMetrics: z.array(z.string()).optional(),
  /** Stands in for the model's name as the source of its weights. */
  weightsSeed: z.string().optional(),
  /** Simulated size of the weights; the profile's when absent. */
  weightsBytes: z.number().min(0).optional(),
  /** Blocks of the KV cache; `--num-gpu-blocks-override` wins. */
  kvBlocks: z.int().min(1).optional(),
  /** Tokens of an answer that is not cut by `max_tokens`. */
  answerTokens: z.int().min(0).optional(),
  /** Length of an embedding. */
  dimensions: z.int().min(1).max(16_384).optional(),
  /** Simulated ms of everything in a start but the weights. */
  initMs: z.number().min(0).optional(),
});
export type Settings = z.infer<typeof settingsSchema>;

/** Settings with the folder where counter files lie beside them. */
export interface FoundSettings {
  readonly settings: Settings;
  readonly folder: string;
}

/** Largest settings file. */
const maximumBytes = 100_000;

/**
 * Reads `sim.json` in the model's folder, beside the model, or the file that is named instead.
 * Throws when it is there and wrong: a test's typo must not pass for a healthy engine.
 */
export function findSettings(modelPath: string, named: string | undefined): FoundSettings {
  const nextTo = [
    join(modelPath, "sim.json"),
    join(dirname(modelPath), `${basename(modelPath)}.sim.json`),
    join(dirname(modelPath), "sim.json"),
  ];
  for (const path of named === undefined ? nextTo : [named]) {
    const text = readIfThere(path);
    if (text !== null) return { settings: parseSettings(text, path), folder: dirname(path) };
  }
  if (named !== undefined) throw new Error(`${named}: there is no such file`);
  return { settings: {}, folder: dirname(modelPath) };
}

/** Parses settings; `where` names them in the error. */
export function parseSettings(text: string, where: string): Settings {
  if (text.length > maximumBytes) throw new Error(`${where}: larger than ${maximumBytes} bytes`);
  const parsed = settingsSchema.safeParse(JSON.parse(text));
  if (!parsed.success) throw new Error(`${where}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw error;
  }
}

/** Counts one more in a counter file: 1 on the first call. Outlives the process. */
export function countUp(folder: string, name: string): number {
  const path = join(folder, `.sim-${name}`);
  const count = Number(readIfThere(path) ?? 0) + 1;
  writeFileSync(path, String(count));
  return count;
}
