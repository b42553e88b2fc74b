import { PenstockError } from "../../contracts/errors.ts";
import { HttpReader } from "./http-reader.ts";
import type { DirectRequest, ReadRange, Source, SourceFactory, SourceFile, SourceOptions } from "./source.ts";
import { safeUri } from "./uri.ts";

/**
 * `https://host/path/model.gguf`: one file of a web server. Folders have no listing over HTTP.
 * Credentials: `user:password@` in the URI, or a signed query. Checksum: only the model spec's `sha256`.
 */
export const httpSource: SourceFactory = (uri, options) => new HttpSource(uri, options);

class HttpSource implements Source {
  readonly uri: string;
  readonly #name: string;
  readonly #reader: HttpReader;
  readonly #proxied: boolean;

  constructor(uri: string, { proxied = false }: SourceOptions) {
    this.#proxied = proxied;
    this.uri = safeUri(uri);
    const url = URL.parse(uri);
    const name = url === null ? "" : decodeName(url.pathname);
    if (url === null || name === "") {
      throw new PenstockError("invalid_config", `The source ${this.uri} should name a file, such as .../model.gguf.`, {
        param: "model.source",
      });
    }
    const { username, password } = url;
    url.username = "";
    url.password = "";
    url.hash = "";
    this.#name = name;
    this.#reader = new HttpReader({
      uri: this.uri,
      url,
      credentials: username === "" ? {} : { authorization: basic(username, password) },
      remedy: "Put user:password@ before the host, or use a signed link that is still valid.",
    });
  }

  async list(signal: AbortSignal): Promise<SourceFile[]> {
    const facts = await this.#reader.probe(signal);
    return [{ path: this.#name, sha256: null, ...facts }];
  }

  readRange(file: SourceFile, range: ReadRange): AsyncIterable<Uint8Array> {
    return this.#reader.read(file, range);
  }

  async direct(file: SourceFile, signal: AbortSignal): Promise<DirectRequest | null> {
    return this.#proxied ? null : this.#reader.locate(file, signal);
  }
}

function decodeName(pathname: string): string {
  const last = pathname.slice(pathname.lastIndexOf("/") + 1);
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}

function basic(username: string, password: string): string {
  const pair = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return `Basic ${Buffer.from(pair, "utf8").toString("base64")}`;
}
