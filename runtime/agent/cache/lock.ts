import { writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";

/**
 * Who gets along with whom on one lock: any number of `use`, one `fetch` beside them, and `remove` only alone.
 */
export type LockMode = "use" | "fetch" | "remove";

/** SQLite's shared, reserved and exclusive locks; nothing is ever written to the file. */
const statements = {
  use: "BEGIN; SELECT 1 FROM sqlite_schema",
  fetch: "BEGIN IMMEDIATE",
  remove: "BEGIN EXCLUSIVE",
} as const satisfies Record<LockMode, string>;

/** https://sqlite.org/rescode.html#busy; the higher bits say more. */
const busy = 5;

/**
 * A lock on a file that the kernel keeps: it ends with its process, however that ends, so there is nothing stale to break,
 * and it holds between containers too. Node has no such lock of its own; an empty SQLite database has (`fcntl`).
 * Such a file must never be opened by other means: closing it would let go of the locks of this whole process.
 */
export class FileLock implements Disposable {
  readonly #database: DatabaseSync;

  private constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /** Takes a lock, or answers undefined when another process, or another lock of this one, is in the way. */
  static try(path: string, mode: LockMode): FileLock | undefined {
    create(path);
    const database = new DatabaseSync(path, { timeout: 0 });
    try {
      // Otherwise `BEGIN IMMEDIATE` on an empty file makes a journal beside it.
      database.exec("PRAGMA journal_mode=MEMORY");
      database.exec(statements[mode]);
      return new FileLock(database);
    } catch (thrown) {
      database.close();
      if (isBusy(thrown)) return undefined;
      throw thrown;
    }
  }

  [Symbol.dispose](): void {
    if (this.#database.isOpen) this.#database.close();
  }
}

/** SQLite's own message for a full disk does not say so; this throws `ENOSPC`. */
function create(path: string): void {
  try {
    writeFileSync(path, "", { flag: "wx", mode: 0o644 });
  } catch (thrown) {
    if (!(thrown instanceof Error && "code" in thrown && thrown.code === "EEXIST")) throw thrown;
  }
}

function isBusy(thrown: unknown): boolean {
  return (
    thrown instanceof Error &&
    "errcode" in thrown &&
    typeof thrown.errcode === "number" &&
    thrown.errcode % 256 === busy
  );
}
