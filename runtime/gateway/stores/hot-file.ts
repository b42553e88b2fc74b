import { DatabaseSync } from "node:sqlite";
import { z } from "zod";
import type { AccountState } from "./account.ts";
import { MemoryHotStore } from "./hot-memory.ts";

/** What a kill of the process may lose of the meters and of what is to be remembered. */
const flushIntervalMs = 1_000;

/** How long a write waits for another process that writes, which holds the event loop up. */
const busyTimeoutMs = 250;

const accountState = z.object({
  rates: z.record(z.string(), z.object({ used: z.number(), atMs: z.number(), drain: z.number().positive() })),
  budgets: z.record(z.string(), z.object({ spent: z.number(), periodEndMs: z.number() })),
});

/** A value of the file. */
interface Kept {
  readonly bytes: Uint8Array;
  /** On the wall clock. */
  readonly untilMs: number;
}

/**
 * A hot store in this process whose accounts are kept in a SQLite file, so that limits and budgets survive a restart, and
 * with them the values that were to be remembered: read at the start, written each second when they changed, and on
 * dispose. `onError` hears of a write that failed; it is tried again.
 */
export class FileHotStore extends MemoryHotStore {
  readonly #database: DatabaseSync;
  readonly #timer: NodeJS.Timeout;
  #unwritten = new Map<string, AccountState>();
  /** Values as they shall be in the file; null for those that shall not be there. */
  #unwrittenValues = new Map<string, Kept | null>();
  /** Keys of values in the file. */
  readonly #kept = new Set<string>();

  constructor(path: string, onError: (error: unknown) => void) {
    super();
    this.#database = new DatabaseSync(path, { timeout: busyTimeoutMs });
    this.#database.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
      CREATE TABLE IF NOT EXISTS hot_accounts (account TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS hot_values (key TEXT PRIMARY KEY, value BLOB NOT NULL, until_ms INTEGER NOT NULL);`);
    for (const row of this.#database.prepare("SELECT account, state FROM hot_accounts").all()) {
      const state = parseState(row["state"]);
      if (typeof row["account"] === "string" && state !== undefined) this.restore(row["account"], state);
    }
    this.#readValues();
    this.#timer = setInterval(() => {
      try {
        this.#flush();
      } catch (error) {
        onError(error);
      }
    }, flushIntervalMs).unref();
  }

  override async set(key: string, value: Uint8Array, ttlMs: number): Promise<boolean> {
    this.#forget(key);
    return await super.set(key, value, ttlMs);
  }

  override async remember(key: string, value: Uint8Array, ttlMs: number): Promise<boolean> {
    const isKept = await super.set(key, value, ttlMs);
    if (!isKept) this.#forget(key);
    else {
      this.#kept.add(key);
      this.#unwrittenValues.set(key, { bytes: Buffer.from(value), untilMs: Math.round(Date.now() + ttlMs) });
    }
    return isKept;
  }

  override async delete(key: string): Promise<void> {
    this.#forget(key);
    await super.delete(key);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    try {
      this.#flush();
    } finally {
      this.#database.close();
      await super[Symbol.asyncDispose]();
    }
  }

  #readValues(): void {
    const nowMs = Date.now();
    for (const { key, value, until_ms: untilMs } of this.#database.prepare("SELECT * FROM hot_values").all()) {
      if (typeof key !== "string") continue;
      this.#kept.add(key);
      if (!(value instanceof Uint8Array) || typeof untilMs !== "number" || untilMs <= nowMs) continue;
      // Nothing in it waits.
      void super.set(key, value, untilMs - nowMs);
    }
  }

  /** A value that is not to be remembered any more. */
  #forget(key: string): void {
    if (this.#kept.delete(key)) this.#unwrittenValues.set(key, null);
  }

  #flush(): void {
    for (const [account, state] of this.takeChanges()) this.#unwritten.set(account, state);
    if (this.#unwritten.size === 0 && this.#unwrittenValues.size === 0) return;
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      this.#writeAccounts();
      this.#writeValues();
      this.#database.exec("COMMIT");
      this.#unwritten = new Map();
      this.#unwrittenValues = new Map();
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  #writeAccounts(): void {
    const write = this.#database.prepare(
      "INSERT INTO hot_accounts VALUES (?, ?) ON CONFLICT DO UPDATE SET state = excluded.state",
    );
    for (const [account, state] of this.#unwritten) write.run(account, JSON.stringify(state));
  }

  #writeValues(): void {
    if (this.#unwrittenValues.size === 0) return;
    const write = this.#database.prepare("INSERT OR REPLACE INTO hot_values VALUES (?, ?, ?)");
    const remove = this.#database.prepare("DELETE FROM hot_values WHERE key = ?");
    for (const [key, kept] of this.#unwrittenValues) {
      if (kept === null) remove.run(key);
      else write.run(key, kept.bytes, kept.untilMs);
    }
    const old = this.#database.prepare("DELETE FROM hot_values WHERE until_ms <= ? RETURNING key");
    for (const { key } of old.all(Date.now())) this.#kept.delete(String(key));
  }
}

/** A row that nobody can read any more counts as no usage at all. */
function parseState(text: unknown): AccountState | undefined {
  try {
    return accountState.safeParse(JSON.parse(String(text))).data;
  } catch {
    return undefined;
  }
}
