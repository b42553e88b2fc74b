import { DatabaseSync } from "node:sqlite";
import { z } from "zod";
import type { AccountState } from "./account.ts";
import { MemoryHotStore } from "./hot-memory.ts";

/** What a kill of the process may lose of the meters. */
const flushIntervalMs = 1_000;

/** How long a write waits for another process that writes, which holds the event loop up. */
const busyTimeoutMs = 250;

const accountState = z.object({
  rates: z.record(z.string(), z.object({ used: z.number(), atMs: z.number(), drain: z.number().positive() })),
  budgets: z.record(z.string(), z.object({ spent: z.number(), periodEndMs: z.number() })),
});

/**
 * A hot store in this process whose accounts are kept in a SQLite file, so that limits and budgets survive a restart: read
 * at the start, written each second when they changed, and on dispose. `onError` hears of a write that failed; it is
 * tried again.
 */
export class FileHotStore extends MemoryHotStore {
  readonly #database: DatabaseSync;
  readonly #timer: NodeJS.Timeout;
  #unwritten = new Map<string, AccountState>();

  constructor(path: string, onError: (error: unknown) => void) {
    super();
    this.#database = new DatabaseSync(path, { timeout: busyTimeoutMs });
    this.#database.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
      CREATE TABLE IF NOT EXISTS hot_accounts (account TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;`);
    for (const row of this.#database.prepare("SELECT account, state FROM hot_accounts").all()) {
      const state = parseState(row["state"]);
      if (typeof row["account"] === "string" && state !== undefined) this.restore(row["account"], state);
    }
    this.#timer = setInterval(() => {
      try {
        this.#flush();
      } catch (error) {
        onError(error);
      }
    }, flushIntervalMs).unref();
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

  #flush(): void {
    for (const [account, state] of this.takeChanges()) this.#unwritten.set(account, state);
    if (this.#unwritten.size === 0) return;
    const write = this.#database.prepare(
      "INSERT INTO hot_accounts VALUES (?, ?) ON CONFLICT DO UPDATE SET state = excluded.state",
    );
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      for (const [account, state] of this.#unwritten) write.run(account, JSON.stringify(state));
      this.#database.exec("COMMIT");
      this.#unwritten = new Map();
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
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
