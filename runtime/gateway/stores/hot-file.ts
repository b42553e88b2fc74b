import { DatabaseSync } from "node:sqlite";
import { z } from "zod";
import type { AccountState } from "./account.ts";
import type { MemoryHotStore } from "./hot-memory.ts";

/** What a kill of the process may lose of the meters. */
const flushIntervalMs = 1_000;

const accountState = z.object({
  rates: z.record(z.string(), z.object({ used: z.number(), atMs: z.number(), drain: z.number().positive() })),
  budgets: z.record(z.string(), z.object({ spent: z.number(), periodEndMs: z.number() })),
});

/**
 * Keeps the accounts of a store in a SQLite file, so that limits and budgets survive a restart: reads them now, writes
 * what changed each second, and the rest on dispose. `onError` hears of a write that failed; it is tried again.
 */
export function keepInFile(store: MemoryHotStore, path: string, onError: (error: unknown) => void): Disposable {
  const database = new DatabaseSync(path, { timeout: 5_000 });
  database.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS hot_accounts (account TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;`);
  for (const row of database.prepare("SELECT account, state FROM hot_accounts").all()) {
    const state = parseState(row["state"]);
    if (typeof row["account"] === "string" && state !== undefined) store.restore(row["account"], state);
  }
  const write = database.prepare(
    "INSERT INTO hot_accounts VALUES (?, ?) ON CONFLICT DO UPDATE SET state = excluded.state",
  );
  let unwritten = new Map<string, AccountState>();
  const flush = (): void => {
    for (const [account, state] of store.takeChanges()) unwritten.set(account, state);
    if (unwritten.size === 0) return;
    database.exec("BEGIN IMMEDIATE");
    try {
      for (const [account, state] of unwritten) write.run(account, JSON.stringify(state));
      database.exec("COMMIT");
      unwritten = new Map();
    } catch (error) {
      if (database.isTransaction) database.exec("ROLLBACK");
      throw error;
    }
  };
  const timer = setInterval(() => {
    try {
      flush();
    } catch (error) {
      onError(error);
    }
  }, flushIntervalMs).unref();
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      try {
        flush();
      } finally {
        database.close();
      }
    },
  };
}

/** A row that nobody can read any more counts as no usage at all. */
function parseState(text: unknown): AccountState | undefined {
  try {
    return accountState.safeParse(JSON.parse(String(text))).data;
  } catch {
    return undefined;
  }
}
