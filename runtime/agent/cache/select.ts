import { PenstockError } from "../../contracts/errors.ts";
import { unusable } from "../sources/errors.ts";
import type { SourceFile } from "../sources/source.ts";
import type { CachedSpec } from "./key.ts";

/** The files of a listing that a model consists of. */
export interface Selection {
  readonly files: readonly SourceFile[];
  /** The `.gguf` or the first shard; empty for the folder itself. */
  readonly entry: string;
}

const shard = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/;

/** Weights in other formats beside safetensors, which no engine of ours opens. */
const otherWeights = /\.(bin|pth?|h5|msgpack|onnx|ot|gguf|tflite|ckpt)$/i;

/**
 * Chooses the files of a model and gives them the spec's checksum.
 * Throws `model_file_invalid` when the source does not have what the format asks for, `invalid_config` when a choice is left.
 */
export function selectFiles(
  spec: CachedSpec,
  { listed, uri }: { listed: readonly SourceFile[]; uri: string },
): Selection {
  const chosen = spec.format === "gguf" ? chooseGguf(listed, uri) : chooseFolder(spec, { listed, uri });
  return { ...chosen, files: withSpecChecksum(spec, { files: chosen.files, uri }) };
}

function chooseGguf(listed: readonly SourceFile[], uri: string): Selection {
  // A projector for images lies beside the model; it travels with it but is not the model.
  const all = listed.length === 1 ? listed : listed.filter((file) => file.path.endsWith(".gguf"));
  const models = listed.length === 1 ? listed : all.filter((file) => !/(^|\/)mmproj[^/]*$/i.test(file.path));
  const [first] = models.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  if (first === undefined) {
    throw new PenstockError("model_file_invalid", `${uri} has no .gguf file. Name another source, or another format.`);
  }
  const [, stem, , of] = shard.exec(first.path) ?? [];
  if (stem === undefined || of === undefined) {
    if (models.length > 1) throw ambiguous(models, uri);
    return { files: all, entry: first.path };
  }
  const names = new Set(models.map((file) => file.path));
  const wanted = Array.from(
    { length: Number(of) },
    (_, i) => `${stem}-${String(i + 1).padStart(5, "0")}-of-${of}.gguf`,
  );
  const missing = wanted.find((name) => !names.has(name));
  if (missing !== undefined) {
    throw new PenstockError(
      "model_file_invalid",
      `${uri} lacks the shard ${missing}. Upload all ${Number(of)} shards.`,
    );
  }
  if (models.length > wanted.length) throw ambiguous(models, uri);
  return { files: all, entry: wanted[0] ?? first.path };
}

function ambiguous(models: readonly SourceFile[], uri: string): PenstockError {
  const names = models.slice(0, 5).map((file) => file.path);
  return new PenstockError(
    "invalid_config",
    `${uri} has ${models.length} GGUF files (${names.join(", ")}${models.length > 5 ? ", ..." : ""}). ` +
      "Name one of them in the model's source.",
    { param: "model.source" },
  );
}

function chooseFolder(
  { format }: CachedSpec,
  { listed, uri }: { listed: readonly SourceFile[]; uri: string },
): Selection {
  const visible = listed.filter(({ path }) => !path.split("/").some((name) => name.startsWith(".")));
  if (format === "engine") {
    if (visible.length === 0) throw unusable(uri, "It has only hidden files.");
    return { files: visible, entry: "" };
  }
  const files = visible.filter(({ path }) => !otherWeights.test(path));
  if (!files.some(({ path }) => path.endsWith(".safetensors"))) {
    throw new PenstockError(
      "model_file_invalid",
      `${uri} has no .safetensors file. Name another source, or another format.`,
    );
  }
  return { files, entry: "" };
}

function withSpecChecksum(
  { sha256 }: CachedSpec,
  { files, uri }: { files: readonly SourceFile[]; uri: string },
): readonly SourceFile[] {
  const [only] = files;
  if (sha256 === undefined || only === undefined) return files;
  if (files.length > 1) {
    throw new PenstockError(
      "invalid_config",
      `The model's sha256 is for one file, and ${uri} has ${files.length}. Put a SHA256SUMS file beside them instead.`,
      { param: "model.sha256" },
    );
  }
  if (only.sha256 !== null && only.sha256 !== sha256) {
    throw new PenstockError(
      "checksum_mismatch",
      `The model's sha256 is ${sha256}, but ${uri} says that ${only.path} has ${only.sha256}. Correct the model's sha256.`,
    );
  }
  return [{ ...only, sha256 }];
}
