import { checkGgufAdapter } from "./gguf.ts";
import { checkPeftAdapter } from "./peft.ts";

/** An adapter and the model that it is for, both on this node. */
export interface AdapterFiles {
  /** `safetensors`: a folder in PEFT's format. `gguf`: a file. */
  readonly adapterPath: string;
  /** `safetensors`: the model's folder with `config.json`. `gguf`: the file, or the first shard of a split one. */
  readonly modelPath: string;
  readonly format: "safetensors" | "gguf";
  /** The largest rank that the engine was started for; null when it takes any. */
  readonly maxRank: number | null;
}

/** What an adapter says about itself. */
export interface CheckedAdapter {
  /** Its largest rank, which is what an engine must have room for. */
  readonly rank: number;
  /** What the model that it was trained on is called; null when it does not say. */
  readonly baseModel: string | null;
}

/**
 * Checks an adapter against its model before an engine is asked to load it: an engine answers a wrong one with a stack
 * trace, ends, or takes it and writes nonsense. Reads headers alone, never weights. Throws `adapter_invalid` with what to
 * do, and `model_file_invalid` when it is the model whose files are broken. No message has a path of this node.
 */
export async function checkAdapter(files: AdapterFiles): Promise<CheckedAdapter> {
  return files.format === "gguf" ? checkGgufAdapter(files) : checkPeftAdapter(files);
}
