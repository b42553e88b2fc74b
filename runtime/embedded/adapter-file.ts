import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { PenstockError } from "../contracts/errors.ts";
import { checkAdapter } from "../lib/adapters/check.ts";

/**
 * Throws `invalid_value` for `lora_path` unless it is a LoRA adapter that fits the model. llama.cpp ends the process for
 * some that do not.
 */
export async function checkAdapterFile(adapterPath: string, modelPath: string): Promise<void> {
  try {
    await checkAdapter({ adapterPath, modelPath, format: "gguf", maxRank: null });
  } catch (cause) {
    if (!(cause instanceof PenstockError)) throw cause;
    throw new PenstockError("invalid_value", cause.message, { param: "lora_path", cause });
  }
}

/** A name of a file that lasts as long as it is in scope. */
export interface FileLink extends AsyncDisposable {
  readonly path: string;
}

/**
 * A new name for the same file. node-llama-cpp keeps an adapter under its path until the model goes, so a new version
 * of a file under its old name would not be read. Once loaded, the name is needed no longer.
 */
export async function freshLink(path: string): Promise<FileLink> {
  const folder = await mkdtemp(join(tmpdir(), "penstock-lora-"));
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  const link = join(folder, "adapter.gguf");
  try {
    await symlink(resolve(path), link);
    return { path: link, [Symbol.asyncDispose]: remove };
  } catch {
    // No right to make links (Windows): the plain path works, but a new version of the file needs a restart.
    await remove();
    return { path, [Symbol.asyncDispose]: () => Promise.resolve() };
  }
}
