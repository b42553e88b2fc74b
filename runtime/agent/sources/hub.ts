import { PenstockError } from "../../contracts/errors.ts";
import { denied, notFound, statusError, toSourceError, unusable } from "./errors.ts";
import { HttpReader } from "./http-reader.ts";
import type { DirectRequest, ReadRange, Source, SourceFactory, SourceFile, SourceOptions } from "./source.ts";
import { safeUri, segmentsOf } from "./uri.ts";

const publicHub = "https://huggingface.co";
const maxFiles = 10_000;
const remedy =
  "Set HF_TOKEN to a token that may read this repository, and accept its terms on the hub when it is gated. " +
  "The hub says the same of a repository that does not exist, so check the name too.";

/**
 * `hf://org/repo[/path][@revision]`: a file, a folder or all of a model repository on the Hugging Face hub or a mirror.
 * The revision (default `main`) is resolved to a commit once; everything is then read at that commit.
 * Credentials: `hubToken`. Checksum: the sha256 of large files (LFS); small files in git have none.
 */
export const hubSource: SourceFactory = (uri, options) => new HubSource(uri, options);

/** What a list and a path lookup have in common. */
interface Entry {
  readonly path: string;
  readonly type: string;
  readonly size: number;
  readonly oid?: string | undefined;
  readonly lfs?: { readonly oid: string; readonly size: number } | undefined;
}

type Fetch = typeof globalThis.fetch;

class HubSource implements Source {
  readonly uri: string;
  readonly #hub: URL;
  readonly #credentials: Readonly<Record<string, string>>;
  readonly #repo: string;
  readonly #path: string;
  readonly #revision: string;
  /** Path of each listed file in the repository. */
  readonly #fullPaths = new Map<string, string>();
  readonly #readers = new Map<string, HttpReader>();
  readonly #proxied: boolean;
  #commit: string | undefined;

  constructor(uri: string, { hubEndpoint = publicHub, hubToken, proxied = false }: SourceOptions) {
    this.#proxied = proxied;
    this.uri = safeUri(uri);
    const [, place = "", revision] = /^([^@]*)(?:@(.+))?$/.exec(this.uri) ?? [];
    const [owner = "", repo = "", ...path] = segmentsOf(place, {
      atLeast: 2,
      shape: "hf://org/repo, hf://org/repo/file.gguf or hf://org/repo@revision",
    });
    this.#repo = `${owner}/${repo}`;
    this.#path = path.join("/");
    this.#revision = revision ?? "main";
    this.#hub = hubOf(hubEndpoint);
    this.#credentials = hubToken === undefined ? {} : { authorization: `Bearer ${hubToken}` };
  }

  async list(signal: AbortSignal): Promise<SourceFile[]> {
    try {
      const commit = (this.#commit ??= await this.#resolve(signal));
      const entries = await this.#entries(commit, signal);
      if (entries.length === 0) throw notFound(this.uri);
      return entries.map((entry) => this.#fileOf(entry));
    } catch (thrown) {
      throw this.#explain(thrown, signal);
    }
  }

  readRange(file: SourceFile, range: ReadRange): AsyncIterable<Uint8Array> {
    // A commit never changes, and where the hub redirects to has other ETags: nothing to compare.
    return this.#reader(file).read({ ...file, etag: null }, range);
  }

  async direct(file: SourceFile, signal: AbortSignal): Promise<DirectRequest | null> {
    return this.#proxied ? null : this.#reader(file).locate({ ...file, etag: null }, signal);
  }

  async #resolve(signal: AbortSignal): Promise<string> {
    const { modelInfo } = await import("@huggingface/hub");
    const { sha } = await modelInfo({
      name: this.#repo,
      revision: this.#revision,
      additionalFields: ["sha"],
      ...this.#client(signal),
    });
    // It becomes part of addresses.
    if (typeof sha === "string" && /^[0-9a-f]{40,64}$/.test(sha)) return sha;
    throw unusable(this.uri, "The hub names no commit for its revision; check HF_ENDPOINT.");
  }

  async #entries(commit: string, signal: AbortSignal): Promise<Entry[]> {
    const { listFiles, pathsInfo } = await import("@huggingface/hub");
    const about = { repo: this.#repo, revision: commit, ...this.#client(signal) };
    if (this.#path !== "") {
      const [found] = await pathsInfo({ ...about, paths: [this.#path] });
      if (found === undefined) return [];
      if (found.type === "file") return [found];
    }
    const entries: Entry[] = [];
    for await (const entry of listFiles({ ...about, path: encodePath(this.#path), recursive: true })) {
      if (entry.type === "file") entries.push(entry);
      if (entries.length > maxFiles)
        throw unusable(this.uri, `It has more than ${maxFiles} files; name a folder of it.`);
    }
    return entries;
  }

  /** The hub's client knows no signal, and takes tokens of the public hub only: both go in through its fetch. */
  #client(signal: AbortSignal): { hubUrl: string; fetch: Fetch } {
    return {
      hubUrl: this.#hub.href.replace(/\/$/, ""),
      fetch: (input, init) => {
        const url = new URL(input instanceof Request ? input.url : input);
        const headers = new Headers(init?.headers);
        // The next page of a list may be anywhere; the token goes to the hub only.
        if (url.origin === this.#hub.origin) {
          for (const [name, value] of Object.entries(this.#credentials)) headers.set(name, value);
        }
        return globalThis.fetch(url, {
          ...init,
          headers,
          signal: AbortSignal.any([signal, AbortSignal.timeout(60_000)]),
        });
      },
    };
  }

  #fileOf(entry: Entry): SourceFile {
    const path = entry.path === this.#path ? (entry.path.split("/").at(-1) ?? "") : relative(this.#path, entry.path);
    this.#fullPaths.set(path, entry.path);
    const digest = entry.lfs?.oid.replace(/^sha256:/, "") ?? "";
    return {
      path,
      sizeBytes: entry.lfs?.size ?? entry.size,
      etag: entry.lfs?.oid ?? entry.oid ?? null,
      sha256: /^[0-9a-f]{64}$/.test(digest) ? digest : null,
      ranges: true,
    };
  }

  #reader(file: SourceFile): HttpReader {
    const path = this.#fullPaths.get(file.path);
    const commit = this.#commit;
    if (commit === undefined || path === undefined) throw new TypeError("list first: it pins the commit");
    const known = this.#readers.get(path);
    if (known !== undefined) return known;
    const base = this.#hub.href.replace(/\/$/, "");
    const url = new URL(`${base}/${encodePath(this.#repo)}/resolve/${commit}/${encodePath(path)}`);
    const reader = new HttpReader({ uri: this.uri, url, credentials: this.#credentials, remedy });
    this.#readers.set(path, reader);
    return reader;
  }

  #explain(thrown: unknown, signal: AbortSignal): unknown {
    // The hub's client has an error class per process; its shape is what counts.
    const status = thrown instanceof Error && "statusCode" in thrown ? Number(thrown.statusCode) : Number.NaN;
    if (status === 401 || status === 403) return denied(this.uri, remedy, thrown);
    if (status >= 300) return statusError({ uri: this.uri, status, remedy, cause: thrown });
    return toSourceError(thrown, { uri: this.uri, signal });
  }
}

function hubOf(endpoint: string): URL {
  const url = URL.parse(endpoint);
  if (url !== null && ["http:", "https:"].includes(url.protocol)) return url;
  throw new PenstockError(
    "invalid_config",
    "HF_ENDPOINT should be the address of a hub, such as https://huggingface.co.",
  );
}

function encodePath(path: string): string {
  return path.split("/").map(encodeURIComponent).join("/");
}

function relative(folder: string, path: string): string {
  return folder !== "" && path.startsWith(`${folder}/`) ? path.slice(folder.length + 1) : path;
}
