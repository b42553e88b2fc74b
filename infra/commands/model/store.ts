import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { azureStore } from "./azure-store.ts";
import { s3Store } from "./s3-store.ts";

/** An object of a stack's cache. */
export interface StoredFile {
  /** Below the cache's own address, divided by `/`. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly modified: Date | null;
}

/** A file that is being written; it is there as a whole when `finish` has resolved, and not at all before. */
export interface Upload {
  /** A part, by its number from 0; several may be under way at once. Safe to call again with the same bytes. */
  part(index: number, bytes: Uint8Array, signal: AbortSignal): Promise<void>;
  finish(): Promise<void>;
  /** Leaves nothing behind that is paid for. */
  abort(): Promise<void>;
}

/** The blob store of a stack, written to. Calls throw the store's own errors, explained by `explain`. */
export interface ModelStore {
  /** Objects whose path starts with `prefix`. */
  list(prefix: string): Promise<StoredFile[]>;
  /** A small object, as a whole. */
  put(path: string, bytes: Uint8Array): Promise<void>;
  upload(path: string): Promise<Upload>;
  remove(paths: readonly string[]): Promise<void>;
  /** What may be done about an error of this store; null when there is nothing to add. */
  explain(error: unknown): string | null;
}

/** What a store is told beside its address; nothing is read from the environment here. */
export interface StoreAccess {
  /** A connection string, in place of the identity of `az login` or of the machine. */
  readonly azureConnection: string | undefined;
}

/** The store at `az://account/container` or `s3://bucket`. Does no I/O. */
export function openModelStore(uri: string, access: StoreAccess): ModelStore {
  const { protocol, hostname, pathname } = new URL(uri);
  if (protocol === "az:") return azureStore({ account: hostname, container: pathname.slice(1) }, access);
  if (protocol === "s3:") return s3Store(hostname);
  throw new PenstockError("invalid_config", `${uri} is no store that models can be pushed to; az:// and s3:// are.`);
}
