import { open, type FileHandle } from "node:fs/promises";
import { PenstockError } from "../contracts/errors.ts";

/** Opens a file of a model to read. `name` is what messages call it. Throws `model_file_invalid`. */
export async function openModelFile(path: string, name: string): Promise<FileHandle> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
    const why = code === "ENOENT" ? "there is no such file; check the path" : `it cannot be opened (${code})`;
    throw new PenstockError("model_file_invalid", `Cannot read ${name}: ${why}.`, { cause });
  }
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw new PenstockError("model_file_invalid", `${name} is not a file; check the path.`);
}
