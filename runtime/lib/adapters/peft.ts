import { join } from "node:path";
import { readSafetensorsHeader } from "../safetensors/header.ts";
import { readModelJson } from "../safetensors/json-file.ts";
import { baseConfig, sizesOf } from "./base-config.ts";
import type { AdapterFiles, CheckedAdapter } from "./check.ts";
import { peftConfig, settingsOf } from "./peft-config.ts";
import { checkFit, checkRanks, modulesOf } from "./peft-tensors.ts";
import { checkRank, ofAdapter } from "./refusal.ts";

const configName = "adapter_config.json";
const weightsName = "adapter_model.safetensors";
const maxConfigBytes = 2 ** 20;
const remedy =
  `An adapter for this model is a folder with ${configName} and ${weightsName}, as PEFT's save_pretrained writes it; ` +
  "a full model is named as a model's source instead.";

/**
 * Checks an adapter in PEFT's format against the model that it is for.
 * Format: https://huggingface.co/docs/peft/developer_guides/checkpoint
 */
export async function checkPeftAdapter(files: Omit<AdapterFiles, "format">): Promise<CheckedAdapter> {
  const { adapterPath, modelPath, maxRank } = files;
  const options = { schema: peftConfig, name: configName, maxBytes: maxConfigBytes };
  const config = await ofAdapter(readModelJson(join(adapterPath, configName), options), remedy);
  const { ranks, baseModel } = settingsOf(config);
  const rank = [...ranks].reduce((most, other) => Math.max(most, other));
  checkRank(rank, maxRank);
  const { tensors } = await ofAdapter(readSafetensorsHeader(join(adapterPath, weightsName), weightsName), remedy);
  const modules = modulesOf(tensors);
  checkRanks(modules, ranks);
  const base = { schema: baseConfig, name: "config.json", maxBytes: maxConfigBytes };
  checkFit(modules, sizesOf(await readModelJson(join(modelPath, "config.json"), base)));
  return { rank, baseModel };
}
