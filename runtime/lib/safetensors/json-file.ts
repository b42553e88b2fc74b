import type { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import { openModelFile } from "../model-file.ts";

/** How a JSON file that came with a model is read. */
export interface JsonFile<Schema extends z.ZodType> {
  readonly schema: Schema;
  /** What messages call the file. */
  readonly name: string;
  readonly maxBytes: number;
}

/** Python's json writes numbers that JSON does not have, and configurations of models are written with it. */
const pythonNumber = /([[:,]\s*)-?(?:Infinity|NaN)\b/g;

/** Reads a JSON file that came with a model. Throws `model_file_invalid`, which says what is wrong with it. */
export async function readModelJson<Schema extends z.ZodType>(
  path: string,
  { schema, name, maxBytes }: JsonFile<Schema>,
): Promise<z.output<Schema>> {
  await using handle = await openModelFile(path, name);
  const { size } = await handle.stat();
  if (size > maxBytes) throw invalid(`${name} has ${size} bytes, more than the limit of ${maxBytes}.`);
  const bytes = Buffer.alloc(size);
  const { bytesRead } = await handle.read(bytes, 0, size, 0);
  const parsed = schema.safeParse(parse(bytes.toString("utf8", 0, bytesRead), name));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue?.path.join(".").slice(0, 100);
  throw invalid(`${name} is wrong${where === "" ? "" : ` at ${where}`}: ${issue?.message}.`);
}

function parse(text: string, name: string): unknown {
  try {
    return JSON.parse(text.replaceAll(pythonNumber, "$1null"));
  } catch (cause) {
    throw invalid(`${name} is not JSON; fetch or upload it again.`, cause);
  }
}

function invalid(message: string, cause?: unknown): PenstockError {
  return new PenstockError("model_file_invalid", message, { cause });
}
