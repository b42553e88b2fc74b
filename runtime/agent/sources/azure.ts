import type { TokenCredential } from "@azure/identity";
import type { BlobServiceClient, ContainerClient } from "@azure/storage-blob";
import { PenstockError } from "../../contracts/errors.ts";
import { denied, notFound, replaced, statusError, toSourceError } from "./errors.ts";
import { chunksOf, filesIn, folderOf, metadataSha256, requireFew, type StoredObject } from "./object-store.ts";
import type {
  AzureOptions,
  Checksum,
  DirectRequest,
  ReadRange,
  Source,
  SourceFactory,
  SourceFile,
  SourceOptions,
} from "./source.ts";
import { safeUri, segmentsOf } from "./uri.ts";

const remedy =
  "Give the agent's identity the role Storage Blob Data Reader on the container, or set a SAS token or a connection string.";

/** What a bearer token and a request with it are for; the first version that takes ranges and tokens as we send them. */
const tokenScope = "https://storage.azure.com/.default";
const apiVersion = "2021-08-06";
/** How long a signature that we make ourselves holds: the longest that one direct request is used. */
const signatureMs = 3_600_000;

/**
 * `az://account/container/path`: a blob, or all blobs under a folder, of Azure Blob Storage.
 * Credentials: a SAS in the URI's query or in the options, a connection string, anonymous, else DefaultAzureCredential.
 * Checksums: `sha256` in a blob's metadata, `<name>.sha256` beside it, `SHA256SUMS` in the folder, or the blob's Content-MD5.
 */
export const azureSource: SourceFactory = (uri, options) => new AzureSource(uri, options);

class AzureSource implements Source {
  readonly uri: string;
  readonly #account: string;
  readonly #container: string;
  readonly #path: string;
  readonly #options: AzureOptions;
  readonly #proxied: boolean;
  #token: TokenCredential | undefined;
  #client: Promise<ContainerClient> | undefined;
  /** Folder that the paths of the last list are relative to. */
  #folder: string;

  constructor(uri: string, { azure: options = {}, proxied = false }: SourceOptions) {
    this.uri = safeUri(uri);
    this.#proxied = proxied;
    const [account = "", container = "", ...path] = segmentsOf(uri, {
      atLeast: 2,
      shape: "az://account/container/path/model.gguf",
    });
    this.#account = account;
    this.#container = container;
    this.#path = path.join("/");
    this.#folder = this.#path;
    const sasToken = /\?([^#]+)/.exec(uri)?.[1];
    this.#options = sasToken === undefined ? options : { endpoint: options.endpoint, sasToken };
  }

  async list(signal: AbortSignal): Promise<SourceFile[]> {
    try {
      const client = await this.#connect();
      // Asked first, because a SAS for one blob may not list.
      const single = this.#path === "" ? undefined : await this.#find(client, { name: this.#path, signal });
      if (single !== undefined) {
        this.#folder = folderOf(this.#path);
        const checksum = await this.#find(client, { name: `${this.#path}.sha256`, signal }).catch(() => undefined);
        return filesIn(this.#folder, checksum === undefined ? [single] : [single, checksum]);
      }
      this.#folder = this.#path;
      const files = filesIn(this.#folder, await this.#listFolder(client, signal));
      if (files.length === 0) throw notFound(this.uri);
      return files;
    } catch (thrown) {
      throw this.#explain(thrown, { signal });
    }
  }

  async *readRange(file: SourceFile, { start, end, signal }: ReadRange): AsyncGenerator<Uint8Array> {
    try {
      const client = await this.#connect();
      const blob = client.getBlobClient(this.#nameOf(file));
      const answer = await blob.download(start, end - start, {
        abortSignal: signal,
        conditions: file.etag === null ? {} : { ifMatch: file.etag },
        // The download retries by itself, and knows what has landed.
        maxRetryRequests: 0,
      });
      yield* chunksOf(answer.readableStreamBody, signal);
    } catch (thrown) {
      throw this.#explain(thrown, { signal, path: file.path });
    }
  }

  async direct(file: SourceFile, signal: AbortSignal): Promise<DirectRequest | null> {
    if (this.#proxied) return null;
    try {
      const client = await this.#connect();
      const blob = client.getBlobClient(this.#nameOf(file));
      const { etag } = file;
      const headers: Record<string, string> = etag === null ? {} : { "if-match": etag };
      const { BlobSASPermissions, StorageSharedKeyCredential } = await import("@azure/storage-blob");
      if (client.credential instanceof StorageSharedKeyCredential) {
        const expiresAtMs = Date.now() + signatureMs;
        const permissions = BlobSASPermissions.parse("r");
        const url = await blob.generateSasUrl({ permissions, expiresOn: new Date(expiresAtMs) });
        return { url: new URL(url), headers, etag, expiresAtMs };
      }
      const url = new URL(blob.url);
      if (this.#token === undefined) return { url, headers, etag };
      // As the SDK does: a token never goes out in the clear.
      if (url.protocol !== "https:") return null;
      const { token, expiresOnTimestamp } = (await this.#token.getToken(tokenScope, { abortSignal: signal })) ?? {};
      if (token === undefined) return null;
      const authorization = `Bearer ${token}`;
      return {
        url,
        headers: { ...headers, authorization, "x-ms-version": apiVersion },
        etag,
        expiresAtMs: expiresOnTimestamp,
      };
    } catch (thrown) {
      throw this.#explain(thrown, { signal, path: file.path });
    }
  }

  #nameOf({ path }: SourceFile): string {
    return this.#folder === "" ? path : `${this.#folder}/${path}`;
  }

  /** Properties of one blob; undefined when there is none, or only the marker of a folder. */
  async #find(
    client: ContainerClient,
    { name, signal }: { name: string; signal: AbortSignal },
  ): Promise<StoredObject | undefined> {
    try {
      const about = await client.getBlobClient(name).getProperties({ abortSignal: signal });
      const { contentLength: sizeBytes = 0, etag = null, metadata } = about;
      if (metadata?.["hdi_isfolder"] === "true") return undefined;
      return { name, sizeBytes, etag, sha256: metadataSha256(metadata), ...md5Of(about.contentMD5) };
    } catch (thrown) {
      if (statusOf(thrown) === 404) return undefined;
      throw thrown;
    }
  }

  async #listFolder(client: ContainerClient, signal: AbortSignal): Promise<StoredObject[]> {
    const prefix = this.#path === "" ? "" : `${this.#path}/`;
    const found: StoredObject[] = [];
    for await (const blob of client.listBlobsFlat({ prefix, includeMetadata: true, abortSignal: signal })) {
      const { name, properties, metadata } = blob;
      // With a hierarchical namespace, folders are listed as empty blobs.
      if (metadata?.["hdi_isfolder"] === "true" || !name.startsWith(prefix) || name.endsWith("/")) continue;
      const { contentLength: sizeBytes = 0, etag, contentMD5 } = properties;
      found.push({ name, sizeBytes, etag: quoted(etag), sha256: metadataSha256(metadata), ...md5Of(contentMD5) });
      requireFew(found, this.uri);
    }
    return found;
  }

  #connect(): Promise<ContainerClient> {
    return (this.#client ??= this.#service().then((service) => service.getContainerClient(this.#container)));
  }

  async #service(): Promise<BlobServiceClient> {
    const { AnonymousCredential, BlobServiceClient } = await import("@azure/storage-blob");
    const { connectionString, sasToken, anonymous = false } = this.#options;
    const endpoint = this.#options.endpoint ?? `https://${this.#account}.blob.core.windows.net`;
    const pipeline = { retryOptions: { maxTries: 1 } };
    if (connectionString !== undefined) {
      try {
        return BlobServiceClient.fromConnectionString(connectionString, pipeline);
      } catch (cause) {
        throw new PenstockError("invalid_config", "The connection string for Azure Storage is not a whole one.", {
          cause,
        });
      }
    }
    if (sasToken !== undefined) {
      return new BlobServiceClient(`${endpoint}?${sasToken.replace(/^\?/, "")}`, new AnonymousCredential(), pipeline);
    }
    if (anonymous) return new BlobServiceClient(endpoint, new AnonymousCredential(), pipeline);
    const { DefaultAzureCredential } = await import("@azure/identity");
    this.#token = new DefaultAzureCredential();
    return new BlobServiceClient(endpoint, this.#token, pipeline);
  }

  #explain(thrown: unknown, { signal, path = "" }: { signal: AbortSignal; path?: string }): unknown {
    if (signal.aborted) return signal.reason;
    const status = statusOf(thrown);
    if (status === 412 || status === 416) return replaced(this.uri, path);
    // A malformed credential is a 400 here, and anonymous access to an account that forbids it a 409.
    if (status === 400 || status === 409) return denied(this.uri, remedy, thrown);
    if (status !== undefined) return statusError({ uri: this.uri, status, remedy, cause: thrown });
    const name = thrown instanceof Error ? thrown.name : "";
    if (/^(CredentialUnavailable|AggregateAuthentication|Authentication)/.test(name)) {
      return denied(this.uri, remedy, thrown);
    }
    return toSourceError(thrown, { uri: this.uri, signal });
  }
}

function statusOf(thrown: unknown): number | undefined {
  const status = thrown instanceof Error && "statusCode" in thrown ? thrown.statusCode : undefined;
  return typeof status === "number" ? status : undefined;
}

/** Azure keeps an MD5 of what was uploaded in one piece, and of what its uploader gave one for. */
function md5Of(sum: Uint8Array | undefined): { checksum?: Checksum } {
  return sum?.length === 16 ? { checksum: { algorithm: "md5", value: Buffer.from(sum).toString("hex") } } : {};
}

/** Lists give ETags without the quotes that conditions and single answers have. */
function quoted(etag: string | undefined): string | null {
  if (etag === undefined || etag === "") return null;
  return etag.startsWith('"') ? etag : `"${etag}"`;
}
