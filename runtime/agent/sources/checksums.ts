import { basename, dirname, join } from "node:path/posix";
import { unusable } from "./errors.ts";
import { checkNames } from "./names.ts";
import type { Source, SourceFile } from "./source.ts";

const maxChecksumFileBytes = 1 << 20;
const line = /^([0-9a-f]{64})(?: [ *](.+))?$/i;

/**
 * Lists a source, takes the checksum files out of the list, and gives their sums to the files that have none:
 * `<name>.sha256` (beside the file) and `SHA256SUMS` (for its folder), as coreutils' sha256sum writes them.
 */
export async function listWithChecksums(source: Source, signal: AbortSignal): Promise<SourceFile[]> {
  const listed = await source.list(signal);
  checkNames(listed, source.uri);
  const models = listed.filter((file) => !isChecksumFile(file.path));
  const sums = new Map<string, string>();
  for (const file of listed) {
    if (!isChecksumFile(file.path)) continue;
    for (const [path, sha256] of parse(await readText(source, { file, signal }), file.path)) sums.set(path, sha256);
  }
  return models.map((file) => {
    const sha256 = file.sha256 ?? sums.get(file.path) ?? null;
    return sha256 === file.sha256 ? file : Object.assign({}, file, { sha256 });
  });
}

function isChecksumFile(path: string): boolean {
  return path.endsWith(".sha256") || basename(path) === "SHA256SUMS";
}

function* parse(text: string, path: string): Generator<[path: string, sha256: string]> {
  const folder = dirname(path);
  const own = path.endsWith(".sha256") ? basename(path, ".sha256") : undefined;
  for (const row of text.split(/\r?\n/)) {
    const [, sha256, name] = line.exec(row) ?? [];
    if (sha256 === undefined) continue;
    // `<name>.sha256` speaks of its neighbour, whatever the file was called where the sum was made.
    const target = own ?? name;
    if (target !== undefined) yield [join(folder, target), sha256.toLowerCase()];
  }
}

async function readText(source: Source, { file, signal }: { file: SourceFile; signal: AbortSignal }): Promise<string> {
  if (file.sizeBytes === 0) return "";
  if (file.sizeBytes > maxChecksumFileBytes)
    throw unusable(source.uri, `${file.path} is too large for a checksum file.`);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of source.readRange(file, { start: 0, end: file.sizeBytes, signal })) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > maxChecksumFileBytes) throw unusable(source.uri, `${file.path} is too large for a checksum file.`);
  }
  return Buffer.concat(chunks).toString("utf8");
}
