import type { Stats } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { PenstockError } from "../../contracts/errors.ts";
import { denied, failed, notFound, replaced, toSourceError, unusable } from "./errors.ts";
import type { ReadRange, Source, SourceFactory, SourceFile } from "./source.ts";
import { safeUri } from "./uri.ts";

/** A directory tree with more than this is not a model. */
const maxFiles = 10_000;
const maxDepth = 8;

/**
 * `file:///path`: a file or a directory of this machine (a disk, a mounted share).
 * Checksums: `<name>.sha256` beside the file, or `SHA256SUMS`.
 * Links to files are followed (the hub's own cache is made of them); links to directories are not.
 */
export const fileSource: SourceFactory = (uri) => new FileSource(uri);

class FileSource implements Source {
  readonly uri: string;
  readonly #path: string;

  constructor(uri: string) {
    this.uri = safeUri(uri);
    try {
      this.#path = fileURLToPath(this.uri);
    } catch (cause) {
      throw new PenstockError("invalid_config", `The source ${this.uri} should look like file:///path/to/model.gguf.`, {
        param: "model.source",
        cause,
      });
    }
  }

  async list(signal: AbortSignal): Promise<SourceFile[]> {
    signal.throwIfAborted();
    try {
      const about = await stat(this.#path);
      const files = about.isDirectory() ? await this.#walk("", maxDepth) : await this.#withChecksumFiles(about);
      if (files.length === 0) throw notFound(this.uri);
      return files;
    } catch (thrown) {
      throw this.#explain(thrown, signal);
    }
  }

  async *readRange(file: SourceFile, { start, end, signal }: ReadRange): AsyncGenerator<Uint8Array> {
    if (file.localPath === undefined) throw new TypeError("not a file of this source");
    try {
      await using handle = await open(file.localPath, "r");
      if (etagOf(await handle.stat()) !== file.etag) throw replaced(this.uri, file.path);
      const stream = handle.createReadStream({ start, end: end - 1, highWaterMark: 1 << 20, autoClose: false, signal });
      // A reader that has left listens no more when the signal comes, and an error that nobody hears ends the process.
      stream.on("error", () => undefined);
      yield* stream;
    } catch (thrown) {
      throw this.#explain(thrown, signal);
    }
  }

  async #withChecksumFiles(about: Stats): Promise<SourceFile[]> {
    const name = basename(this.#path);
    const files = [fileOf({ path: name, localPath: this.#path }, about)];
    for (const path of [`${name}.sha256`, "SHA256SUMS"]) {
      const localPath = join(dirname(this.#path), path);
      const beside = await stat(localPath).catch(() => undefined);
      if (beside?.isFile() === true) files.push(fileOf({ path, localPath }, beside));
    }
    return files;
  }

  async #walk(folder: string, depth: number): Promise<SourceFile[]> {
    const files: SourceFile[] = [];
    for (const entry of await readdir(join(this.#path, folder), { withFileTypes: true })) {
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      const localPath = join(this.#path, path);
      if (entry.isDirectory() && depth > 0) files.push(...(await this.#walk(path, depth - 1)));
      else if (entry.isFile() || entry.isSymbolicLink()) {
        const about = await stat(localPath);
        if (about.isFile()) files.push(fileOf({ path, localPath }, about));
      }
      if (files.length > maxFiles)
        throw unusable(this.uri, `It has more than ${maxFiles} files; name a smaller folder.`);
    }
    return files;
  }

  #explain(thrown: unknown, signal: AbortSignal): unknown {
    const code = thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
    if (code === "ENOENT" || code === "ENOTDIR") return notFound(this.uri, thrown);
    if (code === "EACCES" || code === "EPERM") {
      return denied(this.uri, "Let the user that runs the agent read it.", thrown);
    }
    if (code === "EIO" || code === "ESTALE") return failed(this.uri, `the disk answered ${code}`, { cause: thrown });
    return toSourceError(thrown, { uri: this.uri, signal });
  }
}

function fileOf({ path, localPath }: { path: string; localPath: string }, about: Stats): SourceFile {
  return { path, localPath, sizeBytes: about.size, etag: etagOf(about), sha256: null, ranges: true };
}

function etagOf(about: Stats): string {
  return `${about.ino}-${about.size}-${about.mtimeMs}`;
}
