import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import { readSafetensorsHeader } from "./header.ts";
import { readModelJson } from "./json-file.ts";

/** The safetensors files of a model. */
export interface SafetensorsModel {
  /** Names of the files, sorted. */
  readonly files: readonly string[];
  /** Numbers in all tensors of all files. */
  readonly parameters: number;
}

const indexName = "model.safetensors.index.json";
/** The index of a model with 100 000 tensors has 9 MB. */
const maxIndexBytes = 64 * 2 ** 20;
const index = z.object({ weight_map: z.record(z.string(), z.string()) });
const shardName = /^(.*)-\d{5}-of-(\d{5})\.safetensors$/;

/**
 * Checks that a model's folder is whole: every safetensors file in it is (`readSafetensorsHeader`), and those that
 * `model.safetensors.index.json` or the numbers in their names tell of are all there. Throws `model_file_invalid`.
 */
export async function readSafetensorsModel(folder: string): Promise<SafetensorsModel> {
  const names = await readdir(folder);
  const files = names.filter((name) => name.endsWith(".safetensors")).toSorted();
  if (files.length === 0) throw invalid("The model has no .safetensors file. Name another source, or another format.");
  const present = new Set(files);
  for (const file of files) requireShards(file, present);
  if (names.includes(indexName)) await requireIndexed(join(folder, indexName), present);
  let parameters = 0;
  for (const name of files) parameters += (await readSafetensorsHeader(join(folder, name), name)).parameters;
  return { files, parameters };
}

function requireShards(file: string, present: ReadonlySet<string>): void {
  const [, stem = "", total = "0"] = shardName.exec(file) ?? [];
  for (let part = 1; part <= Number(total); part += 1) {
    const name = `${stem}-${String(part).padStart(5, "0")}-of-${total}.safetensors`;
    if (!present.has(name)) throw missing(name);
  }
}

async function requireIndexed(path: string, present: ReadonlySet<string>): Promise<void> {
  const { weight_map: fileOf } = await readModelJson(path, { schema: index, name: indexName, maxBytes: maxIndexBytes });
  const lost = Object.values(fileOf).find((file) => !present.has(file));
  if (lost !== undefined) throw missing(lost.slice(0, 100));
}

function missing(name: string): PenstockError {
  return invalid(`The model lacks its file ${name}. Upload it too, or fetch the model again.`);
}

function invalid(message: string): PenstockError {
  return new PenstockError("model_file_invalid", message);
}
