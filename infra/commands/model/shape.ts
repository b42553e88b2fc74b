import { text } from "node:stream/consumers";
import { Readable } from "node:stream";
import { stringify } from "yaml";
import type { Source, SourceFile } from "../../../runtime/agent/sources/source.ts";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { shapeOf } from "../../plan/shape-of.ts";
import type { ModelShape } from "../../stack/shape.ts";

/** No model's config is near this. */
const maxJsonBytes = 16 * 2 ** 20;

/** The shape of the model at a source, from its config, the index of its weights and the sizes of its files. */
export async function readShape(source: Source, signal: AbortSignal): Promise<ModelShape> {
  const files = await source.list(signal);
  const config = files.find(({ path }) => path === "config.json");
  if (config === undefined) {
    throw new PenstockError(
      "model_file_invalid",
      `${source.uri} has no config.json; write the shape by hand, as stacks/stack.schema.json describes it.`,
    );
  }
  const index = files.find(({ path }) => path === "model.safetensors.index.json");
  const weights = files.filter(({ path }) => /^[^/]+\.safetensors$/.test(path));
  const sizeBytes = weights.reduce((sum, file) => sum + file.sizeBytes, 0);
  return shapeOf(await readJson(source, config, signal), {
    ...(index === undefined ? {} : { index: await readJson(source, index, signal) }),
    ...(sizeBytes === 0 ? {} : { sizeBytes }),
  });
}

/** The shape as it is pasted under a model of a stack file. */
export function shapeText(shape: ModelShape): string {
  return stringify({ shape });
}

async function readJson(source: Source, file: SourceFile, signal: AbortSignal): Promise<unknown> {
  if (file.sizeBytes === 0 || file.sizeBytes > maxJsonBytes) {
    throw new PenstockError("model_file_invalid", `${file.path} of ${source.uri} is no JSON file of a model.`);
  }
  const json = await text(Readable.from(source.readRange(file, { start: 0, end: file.sizeBytes, signal })));
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw new PenstockError("model_file_invalid", `${file.path} of ${source.uri} is no JSON.`, { cause });
  }
}
