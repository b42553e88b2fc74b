import type { HotStore } from "./hot.ts";
import { FileHotStore } from "./hot-file.ts";
import { MemoryHotStore } from "./hot-memory.ts";
import { RedisHotStore, type RedisOptions } from "./hot-redis.ts";
import { GuardedHotStore, type GuardOptions } from "./guarded.ts";
import type { RecordStore } from "./record.ts";
import { SqlRecordStore } from "./record-sql.ts";
import { PostgresSql, type PostgresOptions } from "./sql-postgres.ts";
import { SqliteSql } from "./sql-sqlite.ts";

/** Where the state of each request is: in this process, with its limits kept in a file or not, or on Redis. */
export type HotStoreOptions =
  { readonly kind: "memory"; readonly file?: string } | ({ readonly kind: "redis" } & RedisOptions & GuardOptions);

/** Where the state is that must not be lost. `:memory:` is a file that nobody keeps. */
export type RecordStoreOptions =
  { readonly kind: "sqlite"; readonly file: string } | ({ readonly kind: "postgres" } & PostgresOptions);

/** Opens a hot store. One on Redis opens although the server cannot be reached. `onError` is for the log. */
export async function openHotStore(options: HotStoreOptions, onError: (error: unknown) => void): Promise<HotStore> {
  if (options.kind === "redis") return new GuardedHotStore(await RedisHotStore.open(options, onError), options);
  return options.file === undefined ? new MemoryHotStore() : new FileHotStore(options.file, onError);
}

/** Opens a record store and brings its schema up to date. Throws when it cannot be reached. */
export async function openRecordStore(
  options: RecordStoreOptions,
  onError: (error: unknown) => void,
): Promise<RecordStore> {
  const sql = options.kind === "sqlite" ? new SqliteSql(options.file) : await PostgresSql.open(options, onError);
  return new SqlRecordStore(sql);
}
