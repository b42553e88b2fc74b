import type { DirectRequest, ReadRange, Source, SourceFile } from "./source.ts";

const shard = /-(\d{5})-of-(\d{5})\.gguf(?=$|[?#@])/;
const maxShards = 1_000;

/**
 * The URIs of all shards when `uri` names one shard of a split GGUF (`name-00001-of-00003.gguf`), else the URI itself.
 */
export function shardUris(uri: string): string[] {
  const count = Number(shard.exec(uri)?.[2] ?? 1);
  if (count < 2 || count > maxShards) return [uri];
  const of = String(count).padStart(5, "0");
  return Array.from({ length: count }, (_, index) =>
    uri.replace(shard, `-${String(index + 1).padStart(5, "0")}-of-${of}.gguf`),
  );
}

/** Several sources as one: their lists one after another, each file read from where it was listed. */
export function joinSources(uri: string, sources: readonly Source[]): Source {
  const [only] = sources;
  return sources.length === 1 && only !== undefined ? only : new JoinedSource(uri, sources);
}

class JoinedSource implements Source {
  readonly uri: string;
  readonly #sources: readonly Source[];
  readonly #owners = new Map<string, Source>();

  constructor(uri: string, sources: readonly Source[]) {
    this.uri = uri;
    this.#sources = sources;
  }

  async list(signal: AbortSignal): Promise<SourceFile[]> {
    const files = new Map<string, SourceFile>();
    const lists = await Promise.all(this.#sources.map((source) => source.list(signal)));
    for (const [index, source] of this.#sources.entries()) {
      // Two shards may list one checksum file for both.
      for (const file of lists[index] ?? []) {
        files.set(file.path, file);
        this.#owners.set(file.path, source);
      }
    }
    return [...files.values()];
  }

  readRange(file: SourceFile, range: ReadRange): AsyncIterable<Uint8Array> {
    return this.#ownerOf(file).readRange(file, range);
  }

  async direct(file: SourceFile, signal: AbortSignal): Promise<DirectRequest | null> {
    return (await this.#ownerOf(file).direct?.(file, signal)) ?? null;
  }

  #ownerOf({ path }: SourceFile): Source {
    const owner = this.#owners.get(path);
    if (owner === undefined) throw new TypeError(`${path} is not of this source`);
    return owner;
  }
}
