/** What stores sum their files with. */
export type Algorithm = "sha256" | "md5" | "crc64nvme";

/** What a file's content sums to. */
export interface Checksum {
  readonly algorithm: Algorithm;
  /** Hexadecimal digits of SHA-256 and MD5; base64 of CRC-64/NVME, as S3 writes it. */
  readonly value: string;
}

/** One file that a source offers. */
export interface SourceFile {
  /** Path inside the source, divided by `/`. Hostile until `checkNames` has seen it. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Changes whenever the content does; null when the store tells nothing of the kind. */
  readonly etag: string | null;
  /** What the content hashes to, in hexadecimal digits; null when the source does not say. */
  readonly sha256: string | null;
  /** Another checksum that the store has, for files without a `sha256`. */
  readonly checksum?: Checksum;
  /** Whether reading may begin in the middle. When false, one stream from 0 to the end is all there is. */
  readonly ranges: boolean;
  /** Where the file lies on this machine, for a reflink clone instead of a copy. */
  readonly localPath?: string;
}

/** Part of a file: from `start` up to, not including, `end`. Never empty. */
export interface ReadRange {
  readonly start: number;
  readonly end: number;
  readonly signal: AbortSignal;
}

/** A plain HTTP/1.1 request for a file, to which `Range` is all that has to be added. Holds credentials: never to be logged. */
export interface DirectRequest {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** What the answer's ETag (or Last-Modified) must be; null where it tells nothing. */
  readonly etag: string | null;
  /** When a fresh one must be asked for; undefined where it holds until the server refuses it. */
  readonly expiresAtMs?: number | undefined;
}

/**
 * A model in a store. All calls throw a `SourceError`, whose `retry` says what may still help.
 * Neither retries by itself: the download knows what has landed already.
 */
export interface Source {
  /** The URI without credentials, for messages. */
  readonly uri: string;
  /** The files, and checksum files beside them (`checksums.ts` reads and removes those). Never empty. */
  list(signal: AbortSignal): Promise<SourceFile[]>;
  /** The bytes of a part, in order. May end early or run over; the reader counts. */
  readRange(file: SourceFile, range: ReadRange): AsyncIterable<Uint8Array>;
  /**
   * A request for the file that plain sockets can send, made anew on each call; null where only the source's own client can
   * read the file.
   */
  direct?(file: SourceFile, signal: AbortSignal): Promise<DirectRequest | null>;
}

/** Everything that a source is told beside its URI. Nothing here is read from the environment. */
export interface SourceOptions {
  /** Access token of the Hugging Face hub (`HF_TOKEN`), for private and gated repositories. */
  readonly hubToken?: string | undefined;
  /** Origin of the hub or of a mirror (`HF_ENDPOINT`); default `https://huggingface.co`. */
  readonly hubEndpoint?: string | undefined;
  /** True where requests must go through a proxy (`HTTPS_PROXY`), which plain sockets do not. */
  readonly proxied?: boolean | undefined;
  readonly azure?: AzureOptions | undefined;
  readonly s3?: S3Options | undefined;
}

/** Azure Blob Storage. The first credential given wins; with none, DefaultAzureCredential looks for one. */
export interface AzureOptions {
  readonly connectionString?: string | undefined;
  /** Shared access signature, with or without its `?`. */
  readonly sasToken?: string | undefined;
  /** For public containers. */
  readonly anonymous?: boolean | undefined;
  /** URL of the account, where it is not `https://<account>.blob.core.windows.net` (an emulator, a private cloud). */
  readonly endpoint?: string | undefined;
}

/** S3 and what speaks like it. Credentials and region come from the AWS SDK's own chain unless given. */
export interface S3Options {
  readonly endpoint?: string | undefined;
  readonly region?: string | undefined;
  /** `endpoint/bucket/key` instead of `bucket.endpoint/key`; most servers that are not AWS want it. */
  readonly pathStyle?: boolean | undefined;
  /** For public buckets. */
  readonly anonymous?: boolean | undefined;
}

/** Makes the source of one scheme. Does no I/O and loads no SDK: that waits for the first call. */
export type SourceFactory = (uri: string, options: SourceOptions) => Source;
