import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { EngineError } from "./errors.ts";
import { hash53 } from "./text.ts";

/** A loaded adapter. */
export interface Adapter {
  readonly name: string;
  readonly path: string;
  readonly rank: number;
  readonly seed: number;
}

/** A model or adapter that a request names. */
export interface Served {
  readonly name: string;
  /** Null for the model itself. */
  readonly adapter: Adapter | null;
}

const adapterConfig = z.looseObject({ r: z.number().int().min(1) });

/** Reads an adapter's folder. Throws 404 when there is none, 400 when its rank cannot be read. */
export function readAdapter(name: string, path: string): Adapter {
  const missing = new EngineError(404, `Loading lora ${name} failed: No adapter found for ${path}`);
  let text: string;
  let sizeBytes = 0;
  try {
    text = readFileSync(join(path, "adapter_config.json"), "utf8");
    sizeBytes = statSync(join(path, "adapter_model.safetensors"), { throwIfNoEntry: false })?.size ?? 0;
  } catch {
    throw missing;
  }
  const config = adapterConfig.safeParse(safeJson(text));
  if (!config.success) throw new EngineError(400, `Loading lora ${name} failed: adapter_config.json has no valid r`);
  return { name, path, rank: config.data.r, seed: hash53(`${name}/${text}/${sizeBytes}`) };
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
