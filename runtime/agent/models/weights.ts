import type { ModelSpec } from "../../contracts/model.ts";

/** What names files in the cache, and whom they serve. */
export type FilesSpec = Pick<ModelSpec, "id" | "source" | "format" | "sha256">;

/** Bytes of a load, without the model's name. */
export interface WeightsProgress {
  readonly phase: "download" | "verify";
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly bytesPerSecond: number;
  readonly etaSeconds: number | null;
}

/** Verified files on local disk. They are never evicted until they are disposed of. */
export interface HeldFiles extends Disposable {
  /** What an engine is given: a file or a folder. */
  readonly entryPath: string;
  readonly sizeBytes: number;
  readonly fromCache: boolean;
}

/** What models need of the cache. */
export interface Weights {
  ensure(
    spec: FilesSpec,
    options: { onProgress: (progress: WeightsProgress) => void; signal: AbortSignal },
  ): Promise<HeldFiles>;
  /** Whether the files are there, as far as is known without looking at the disk. */
  has(spec: FilesSpec): boolean;
  remove(spec: FilesSpec): Promise<void>;
  setPinned(spec: FilesSpec, pinned: boolean): Promise<void>;
}
