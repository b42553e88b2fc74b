import type { HeadObjectCommandOutput, S3Client, S3ClientConfig } from "@aws-sdk/client-s3";
import { denied, notFound, replaced, statusError, toSourceError } from "./errors.ts";
import { chunksOf, filesIn, folderOf, metadataSha256, requireFew, type StoredObject } from "./object-store.ts";
import type {
  DirectRequest,
  ReadRange,
  S3Options,
  Source,
  SourceFactory,
  SourceFile,
  SourceOptions,
} from "./source.ts";
import { safeUri, segmentsOf } from "./uri.ts";

const remedy =
  "Give the agent's role s3:GetObject on the objects and s3:ListBucket on the bucket, or set AWS_PROFILE, " +
  "or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_REGION.";

/** Smaller objects are asked for no checksum: it costs a request each, and they are the tokenizer, not the weights. */
const checksumFromBytes = 1 << 20;
const headsAtOnce = 8;

/** How long a presigned request holds: the longest that one direct request is used. Temporary credentials may end sooner. */
const signatureSeconds = 3_600;

/**
 * `s3://bucket/path`: an object, or all objects under a folder, of S3 or a store that speaks like it.
 * Credentials and region: the AWS SDK's own chain (environment, profile, Pod Identity), or anonymous.
 * Checksums: the object's full SHA-256, `sha256` in its metadata, `<name>.sha256` beside it, `SHA256SUMS` in the folder, or the
 * object's CRC-64/NVME, which S3 keeps of every object since 2025.
 */
export const s3Source: SourceFactory = (uri, options) => new S3Source(uri, options);

class S3Source implements Source {
  readonly uri: string;
  readonly #bucket: string;
  readonly #path: string;
  readonly #options: S3Options;
  readonly #proxied: boolean;
  #client: Promise<S3Client> | undefined;
  /** Folder that the paths of the last list are relative to. */
  #folder: string;

  constructor(uri: string, { s3: options = {}, proxied = false }: SourceOptions) {
    this.uri = safeUri(uri);
    this.#proxied = proxied;
    const [bucket = "", ...path] = segmentsOf(uri, { atLeast: 1, shape: "s3://bucket/path/model.gguf" });
    this.#bucket = bucket;
    this.#path = path.join("/");
    this.#folder = this.#path;
    this.#options = options;
  }

  async list(signal: AbortSignal): Promise<SourceFile[]> {
    try {
      const single = this.#path === "" ? undefined : await this.#find(this.#path, signal);
      if (single !== undefined) {
        this.#folder = folderOf(this.#path);
        const checksum = await this.#find(`${this.#path}.sha256`, signal);
        return filesIn(this.#folder, checksum === undefined ? [single] : [single, checksum]);
      }
      this.#folder = this.#path;
      const objects = await this.#withChecksums(await this.#listFolder(signal), signal);
      if (objects.length === 0) throw notFound(this.uri);
      return filesIn(this.#folder, objects);
    } catch (thrown) {
      throw this.#explain(thrown, { signal });
    }
  }

  async *readRange(file: SourceFile, { start, end, signal }: ReadRange): AsyncGenerator<Uint8Array> {
    try {
      const { GetObjectCommand } = await import("@aws-sdk/client-s3");
      const command = new GetObjectCommand({
        Bucket: this.#bucket,
        Key: this.#keyOf(file),
        Range: `bytes=${start}-${end - 1}`,
        ...(file.etag === null ? {} : { IfMatch: file.etag }),
      });
      const answer = await (await this.#connect()).send(command, { abortSignal: signal });
      yield* chunksOf(answer.Body, signal);
    } catch (thrown) {
      throw this.#explain(thrown, { signal, path: file.path });
    }
  }

  async direct(file: SourceFile, signal: AbortSignal): Promise<DirectRequest | null> {
    // The presigner signs; without credentials there is nothing to sign with.
    if (this.#proxied || this.#options.anonymous === true) return null;
    try {
      const [{ GetObjectCommand }, { getSignedUrl }] = await Promise.all([
        import("@aws-sdk/client-s3"),
        import("@aws-sdk/s3-request-presigner"),
      ]);
      const client = await this.#connect();
      const { expiration } = await client.config.credentials();
      const command = new GetObjectCommand({ Bucket: this.#bucket, Key: this.#keyOf(file) });
      const url = new URL(await getSignedUrl(client, command, { expiresIn: signatureSeconds }));
      const expiresAtMs = Math.min(Date.now() + signatureSeconds * 1_000, expiration?.getTime() ?? Infinity);
      return { url, headers: file.etag === null ? {} : { "if-match": file.etag }, etag: file.etag, expiresAtMs };
    } catch (thrown) {
      throw this.#explain(thrown, { signal, path: file.path });
    }
  }

  #keyOf({ path }: SourceFile): string {
    return this.#folder === "" ? path : `${this.#folder}/${path}`;
  }

  /** One object; undefined when there is none. Without s3:ListBucket the answer for none is 403, so the list decides. */
  async #find(name: string, signal: AbortSignal): Promise<StoredObject | undefined> {
    try {
      const head = await this.#head(name, signal);
      return { name, sizeBytes: head.ContentLength ?? 0, etag: head.ETag ?? null, ...checksumsOf(head) };
    } catch (thrown) {
      const status = statusOf(thrown);
      if (status === 404 || status === 403) return undefined;
      throw thrown;
    }
  }

  async #head(name: string, signal: AbortSignal): Promise<HeadObjectCommandOutput> {
    const { HeadObjectCommand } = await import("@aws-sdk/client-s3");
    const command = new HeadObjectCommand({ Bucket: this.#bucket, Key: name, ChecksumMode: "ENABLED" });
    return (await this.#connect()).send(command, { abortSignal: signal });
  }

  async #listFolder(signal: AbortSignal): Promise<StoredObject[]> {
    const { ListObjectsV2Command } = await import("@aws-sdk/client-s3");
    const client = await this.#connect();
    const prefix = this.#path === "" ? "" : `${this.#path}/`;
    const found: StoredObject[] = [];
    let token: string | undefined;
    do {
      const command = new ListObjectsV2Command({ Bucket: this.#bucket, Prefix: prefix, ContinuationToken: token });
      const page = await client.send(command, { abortSignal: signal });
      for (const { Key: name = "", Size: sizeBytes = 0, ETag: etag = null } of page.Contents ?? []) {
        if (name.startsWith(prefix) && !name.endsWith("/")) found.push({ name, sizeBytes, etag, sha256: null });
      }
      requireFew(found, this.uri);
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
    return found;
  }

  /** Lists say nothing of checksums, so each large object is asked. */
  async #withChecksums(objects: readonly StoredObject[], signal: AbortSignal): Promise<StoredObject[]> {
    const known = new Map(objects.map((object) => [object.name, object]));
    const queue = objects.values();
    const worker = async (): Promise<void> => {
      for (const object of queue) {
        if (object.sizeBytes < checksumFromBytes) continue;
        known.set(object.name, { ...object, ...checksumsOf(await this.#head(object.name, signal)) });
      }
    };
    await Promise.all(Array.from({ length: headsAtOnce }, worker));
    return [...known.values()];
  }

  #connect(): Promise<S3Client> {
    return (this.#client ??= this.#makeClient());
  }

  async #makeClient(): Promise<S3Client> {
    const { S3Client } = await import("@aws-sdk/client-s3");
    const { endpoint, region, pathStyle = false, anonymous = false } = this.#options;
    const config: S3ClientConfig = {
      forcePathStyle: pathStyle,
      followRegionRedirects: true,
      // The download retries by itself, and knows what has landed.
      maxAttempts: 1,
      responseChecksumValidation: "WHEN_REQUIRED",
    };
    if (endpoint !== undefined) config.endpoint = endpoint;
    // Servers that are not AWS rarely care, but the SDK wants a region to sign with.
    if (region !== undefined || endpoint !== undefined) config.region = region ?? "us-east-1";
    if (anonymous) {
      config.signer = { sign: async (request) => request };
      // Without these the SDK still looks for somebody to be.
      config.credentials = { accessKeyId: "", secretAccessKey: "" };
    }
    return new S3Client(config);
  }

  #explain(thrown: unknown, { signal, path = "" }: { signal: AbortSignal; path?: string }): unknown {
    if (signal.aborted) return signal.reason;
    const status = statusOf(thrown);
    if (status === 412 || status === 416) return replaced(this.uri, path);
    // An expired token, or a signature for another region, is a 400 here.
    if (status === 400) return denied(this.uri, remedy, thrown);
    if (status !== undefined && status >= 300) return statusError({ uri: this.uri, status, remedy, cause: thrown });
    const words = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : "";
    if (/^(CredentialsProviderError|TokenProviderError)|Region is missing/.test(words)) {
      return denied(this.uri, remedy, thrown);
    }
    return toSourceError(thrown, { uri: this.uri, signal });
  }
}

/** Sums of the whole object. */
function checksumsOf(head: HeadObjectCommandOutput): Pick<StoredObject, "sha256" | "checksum"> {
  const { ChecksumCRC64NVME: value, ChecksumType: type } = head;
  const sha256 = sha256Of(head);
  if (value === undefined || type === "COMPOSITE" || !/^[A-Za-z0-9+/]{11}=$/.test(value)) return { sha256 };
  return { sha256, checksum: { algorithm: "crc64nvme", value } };
}

/** The SHA-256 of the whole object. Multipart uploads often have only a sum of their parts' sums, which is of no use here. */
function sha256Of({
  ChecksumSHA256: sum,
  ChecksumType: type,
  Metadata: metadata,
}: HeadObjectCommandOutput): string | null {
  if (sum === undefined || type === "COMPOSITE" || sum.includes("-")) return metadataSha256(metadata);
  const digest = Buffer.from(sum, "base64").toString("hex");
  return digest.length === 64 ? digest : metadataSha256(metadata);
}

function statusOf(thrown: unknown): number | undefined {
  if (!(thrown instanceof Error) || !("$metadata" in thrown)) return undefined;
  const metadata = thrown.$metadata;
  if (typeof metadata !== "object" || metadata === null || !("httpStatusCode" in metadata)) return undefined;
  return typeof metadata.httpStatusCode === "number" ? metadata.httpStatusCode : undefined;
}
