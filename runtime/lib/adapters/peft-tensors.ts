import type { Dtype, SafetensorsTensor } from "../safetensors/header.ts";
import type { BaseSizes } from "./base-config.ts";
import { refusal } from "./refusal.ts";

/** A module that an adapter changes: `A` is [rank, inputs], `B` is [outputs, rank]. */
export interface LoraModule {
  readonly name: string;
  readonly a: readonly number[];
  readonly b: readonly number[];
}

/**
 * `base_model.model.<module>.lora_A.weight`, and `lora_embedding_A` for embeddings: the names that vLLM's
 * `parse_fine_tuned_lora_name` (vllm/lora/utils.py) takes, with which PEFT's are the same.
 */
const tensorName = /^(?:base_model\.model\.)?(.{1,1024})\.(?:lora_([AB])\.weight|lora_embedding_([AB]))$/;
/** PEFT adds the model's own embeddings when the vocabulary has grown; vLLM leaves them out. */
const baseWeights = /\.(?:embed_tokens|lm_head)\.base_layer\.weight$/;
/** LoRAs of all experts of a layer in one tensor, whose first size is the rank times the number of experts. */
const fusedExperts = /\.experts(?:\.base_layer)?$/;
const floats: ReadonlySet<Dtype> = new Set(["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"]);

const otherModel = "Name an adapter that was trained on this model.";
const saveAgain = "save the adapter again with PEFT's save_pretrained.";

/** The modules that an adapter changes. Throws `adapter_invalid` for tensors that are no LoRA, and for half of a pair. */
export function modulesOf(tensors: ReadonlyMap<string, SafetensorsTensor>): LoraModule[] {
  const halves = { A: new Map<string, readonly number[]>(), B: new Map<string, readonly number[]>() };
  for (const [name, { dtype, shape }] of tensors) {
    if (baseWeights.test(name)) continue;
    const [, module, side, embeddingSide] = tensorName.exec(name) ?? [];
    if (module === undefined) throw foreign(name, tensors);
    if (!floats.has(dtype)) throw refusal(`${clipped(name)} is ${dtype}, which no LoRA is trained in: ${saveAgain}`);
    if (shape.length !== 2) throw refusal(`${clipped(name)} is no matrix, and engines serve no other LoRA.`);
    halves[(side ?? embeddingSide) === "A" ? "A" : "B"].set(module, shape);
  }
  const names = new Set([...halves.A.keys(), ...halves.B.keys()]);
  if (names.size === 0) throw refusal(`The adapter has no tensors: ${saveAgain}`);
  return [...names].map((name) => {
    const [a, b] = [halves.A.get(name), halves.B.get(name)];
    if (a !== undefined && b !== undefined) return { name, a, b };
    throw refusal(`The adapter has only one of the two tensors of ${clipped(name)}: ${saveAgain}`);
  });
}

function foreign(name: string, tensors: ReadonlyMap<string, SafetensorsTensor>): Error {
  const isAdapter = [...tensors.keys()].some((key) => key.includes("lora_"));
  if (isAdapter) return refusal(`The adapter has ${clipped(name)}, which is no tensor of a LoRA: ${saveAgain}`);
  return refusal("The adapter's weights are those of a full model: name it as a model's source instead.");
}

/** Throws `adapter_invalid` unless both tensors of each module have a rank among `allowed`, those of the configuration. */
export function checkRanks(modules: readonly LoraModule[], allowed: ReadonlySet<number>): void {
  for (const { name, a, b } of modules) {
    if (fusedExperts.test(name)) continue;
    const [rank = 0, other = 0] = [a[0], b[1]];
    if (rank === other && allowed.has(rank)) continue;
    const found = rank === other ? `${rank}` : `${rank} and ${other}`;
    throw refusal(
      `${clipped(name)} has rank ${found} in adapter_model.safetensors, where adapter_config.json says ` +
        `${[...allowed].slice(0, 8).join(" or ")}: ${saveAgain}`,
    );
  }
}

type Part = Exclude<keyof BaseSizes, "layers">;

/** Inputs and outputs of the modules that most models have. Undefined: differs between models of equal sizes. */
const parts: Readonly<Record<string, readonly [inputs: Part, outputs: Part | undefined]>> = {
  // Some models have a gate of the same size in q_proj.
  "self_attn.q_proj": ["hidden", undefined],
  "self_attn.k_proj": ["hidden", "keyValueHeads"],
  "self_attn.v_proj": ["hidden", "keyValueHeads"],
  "self_attn.o_proj": ["heads", "hidden"],
  "mlp.gate_proj": ["hidden", "intermediate"],
  "mlp.up_proj": ["hidden", "intermediate"],
  "mlp.down_proj": ["intermediate", "hidden"],
};

const partNames = {
  hidden: "hidden size",
  intermediate: "intermediate size",
  heads: "attention size",
  keyValueHeads: "key-value size",
} as const satisfies Record<Part, string>;

/** A layer of the text model: the towers of models that see or hear have other sizes, and other names before `layers`. */
const layerPart = /^(?:(?:model|language_model)\.)*layers\.(\d{1,6})\.(.+)$/;

/** Throws `adapter_invalid` where a module's sizes or layer cannot be one of the model's, as far as its sizes are known. */
export function checkFit(modules: readonly LoraModule[], sizes: BaseSizes): void {
  for (const { name, a, b } of modules) {
    const [, layer = "", part = ""] = layerPart.exec(name) ?? [];
    const [inputs, outputs] = Object.hasOwn(parts, part) ? (parts[part] ?? []) : [];
    if (inputs !== undefined) checkSize(inputs, { found: a[1], sizes });
    if (outputs !== undefined) checkSize(outputs, { found: b[0], sizes });
    if (layer !== "" && sizes.layers !== undefined && Number(layer) >= sizes.layers) {
      throw refusal(`The adapter changes layer ${layer}; this model has ${sizes.layers} layers, from 0. ${otherModel}`);
    }
  }
}

function checkSize(part: Part, { found, sizes }: { found: number | undefined; sizes: BaseSizes }): void {
  const expected = sizes[part];
  if (expected === undefined || found === expected) return;
  throw refusal(
    `The adapter was trained on a model with ${partNames[part]} ${found}; this model has ${expected}. ${otherModel}`,
  );
}

function clipped(name: string): string {
  return name.length > 120 ? `${name.slice(0, 120)}…` : name;
}
