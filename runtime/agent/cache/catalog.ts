import { lstat, readdir } from "node:fs/promises";
import { overAll } from "./files.ts";
import { isKey } from "./key.ts";
import type { Layout } from "./layout.ts";
import { manifestPath, readManifest, sizeOf, type Manifest } from "./manifest.ts";

/** What is kept in memory of an entry: a few hundred bytes, however many files it has. */
export interface Known {
  readonly key: string;
  /** URI without credentials. */
  readonly source: string;
  readonly sizeBytes: number;
  readonly lastUsedMs: number;
  readonly modelIds: readonly string[];
  /** Which state of the manifest this is from. */
  readonly stamp: string;
}

/** Entries and pins, as they were when the disk was last looked at. */
export class Catalog {
  readonly #layout: Layout;
  readonly #entries = new Map<string, Known>();
  #pins: ReadonlySet<string> = new Set();
  #revision = 0;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /** Another number whenever entries, sizes, model ids or pins are others. */
  get revision(): number {
    return this.#revision;
  }

  /** The least recently used one first. */
  get entries(): readonly Known[] {
    return [...this.#entries.values()].toSorted((a, b) => a.lastUsedMs - b.lastUsedMs);
  }

  get sizeBytes(): number {
    return this.entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  /** The latest stamp of use; undefined without entries. */
  get newestMs(): number | undefined {
    return this.entries.at(-1)?.lastUsedMs;
  }

  get(key: string): Known | undefined {
    return this.#entries.get(key);
  }

  isPinned(key: string): boolean {
    return this.#pins.has(key);
  }

  delete(key: string): void {
    if (this.#entries.delete(key)) this.#revision += 1;
  }

  /** Takes over what an entry's manifest says. */
  async note(key: string, manifest: Manifest): Promise<void> {
    const { source, lastUsedMs, modelIds } = manifest;
    const before = this.#entries.get(key);
    const known = { key, source, sizeBytes: sizeOf(manifest), lastUsedMs, modelIds, stamp: await this.#stampOf(key) };
    this.#entries.set(key, known);
    if (before === undefined || visible(before) !== visible(known)) this.#revision += 1;
  }

  /** Reads which pins there are. */
  async refreshPins(): Promise<void> {
    const pins = new Set((await readdir(this.#layout.pins)).filter(isKey));
    if (pins.size !== this.#pins.size || [...pins].some((key) => !this.#pins.has(key))) this.#revision += 1;
    this.#pins = pins;
  }

  /**
   * Looks at the disk for what other agents did: reads the manifests that changed, forgets entries that are gone.
   * Answers the keys of entries without a readable manifest.
   */
  async refresh(keys: readonly string[]): Promise<string[]> {
    await this.refreshPins();
    const present = new Set(keys);
    for (const key of this.#entries.keys()) if (!present.has(key)) this.delete(key);
    const broken: string[] = [];
    await overAll(keys, async (key) => {
      if ((await this.#stampOf(key)) === this.#entries.get(key)?.stamp) return;
      const manifest = await readManifest(this.#layout.entry(key));
      if (manifest !== undefined) return this.note(key, manifest);
      this.delete(key);
      broken.push(key);
    });
    return broken;
  }

  async #stampOf(key: string): Promise<string> {
    // Every change of a manifest is a new file.
    const about = await lstat(manifestPath(this.#layout.entry(key))).catch(() => undefined);
    return about === undefined ? "" : `${about.ino}-${about.mtimeMs}-${about.size}`;
  }
}

function visible({ source, sizeBytes, modelIds }: Known): string {
  return JSON.stringify([source, sizeBytes, modelIds]);
}
