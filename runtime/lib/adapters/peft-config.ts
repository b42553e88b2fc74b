import { z } from "zod";
import { refusal } from "./refusal.ts";

const rank = z.int().positive().max(65_536);
const text = z.string().max(4096);
const unsupported = z.unknown().optional();

/** `adapter_config.json`, as far as it matters here. Fields: https://huggingface.co/docs/peft/package_reference/lora */
export const peftConfig = z.looseObject({
  peft_type: text,
  rank_pattern: z.record(z.string(), rank).nullish(),
  bias: text.default("none"),
  init_lora_weights: z.union([z.boolean(), text]).nullish(),
  base_model_name_or_path: text.nullish(),
  modules_to_save: z.array(text).nullish(),
  use_dora: unsupported,
  lora_bias: unsupported,
  use_qalora: unsupported,
  use_bdlora: unsupported,
  alora_invocation_tokens: unsupported,
  layer_replication: unsupported,
});

/** What vLLM's `PEFTHelper` needs of a LoRA: fields without a default there. */
const required = z.looseObject({
  r: rank,
  lora_alpha: z.number(),
  target_modules: z.union([text, z.array(text), z.null()]),
});

/** What an adapter's configuration says. */
export interface LoraSettings {
  /** Ranks that its modules may have: `r`, and those of `rank_pattern`. */
  readonly ranks: ReadonlySet<number>;
  readonly baseModel: string | null;
}

const pleaseMerge = "Merge the adapter into its model, and serve that model.";

/** Features that change what an adapter computes, and that the engines do not have. */
const features = [
  ["use_dora", "DoRA"],
  ["lora_bias", "biases in its LoRA"],
  ["use_qalora", "QALoRA"],
  ["use_bdlora", "block-diagonal LoRA"],
  ["alora_invocation_tokens", "activated LoRA"],
  ["layer_replication", "layers that are repeated"],
] as const satisfies readonly (readonly [keyof z.infer<typeof peftConfig>, string])[];

/** Ways to begin that leave the model's own weights as they are; PiSSA, OLoRA, CorDA and LoftQ change them. */
const harmlessBeginnings: ReadonlySet<string> = new Set(["gaussian", "eva", "orthogonal", "mica", "lora_ga"]);

/**
 * Refuses what vLLM's `PEFTHelper` refuses (`_validate_features` and `validate_legal` in vllm/lora/peft_helper.py), whose
 * older versions loaded some of it and wrote nonsense. Throws `adapter_invalid`.
 */
export function settingsOf(config: z.infer<typeof peftConfig>): LoraSettings {
  if (config.peft_type !== "LORA") {
    throw refusal(
      `The adapter is of type ${config.peft_type.slice(0, 64)}, and only LORA can be served. ${pleaseMerge}`,
    );
  }
  const { data, error } = required.safeParse(config);
  if (data === undefined) {
    const field = String(error.issues[0]?.path[0]);
    throw refusal(`adapter_config.json has no valid ${field}: save the adapter again with PEFT's save_pretrained.`);
  }
  for (const [field, name] of features) if (isSet(config[field])) throw cannot(`uses ${name} (${field})`);
  if (isSet(config.modules_to_save)) {
    const modules = config.modules_to_save?.join(", ").slice(0, 200);
    throw cannot(`replaces whole modules of its model (modules_to_save: ${modules})`);
  }
  if (config.bias !== "none") throw cannot(`has trained biases (bias: ${config.bias.slice(0, 64)})`);
  const { init_lora_weights: beginning } = config;
  if (typeof beginning === "string" && !harmlessBeginnings.has(beginning.toLowerCase())) {
    throw cannot(`changes its model's own weights as well (init_lora_weights: ${beginning.slice(0, 64)})`);
  }
  const ranks = new Set([data.r, ...Object.values(config.rank_pattern ?? {})]);
  return { ranks, baseModel: config.base_model_name_or_path ?? null };
}

function cannot(what: string): Error {
  return refusal(`The adapter ${what}, which engines cannot serve. ${pleaseMerge}`);
}

/** As Python sees it: an empty list or table is not set either. */
function isSet(value: unknown): boolean {
  return typeof value === "object" && value !== null ? Object.keys(value).length > 0 : Boolean(value);
}
