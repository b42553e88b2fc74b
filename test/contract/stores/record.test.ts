import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SqlRecordStore } from "../../../runtime/gateway/stores/record-sql.ts";
import { PostgresSql } from "../../../runtime/gateway/stores/sql-postgres.ts";
import { SqliteSql } from "../../../runtime/gateway/stores/sql-sqlite.ts";
import { temporaryFolder } from "../../support/folders.ts";
import { lackingPostgres, postgres, type PostgresServer } from "../../support/servers/postgres.ts";
import { recordContract } from "./record.contract.ts";

describe("in SQLite", () => {
  const scope = new AsyncDisposableStack();
  let file: string;

  beforeAll(async () => {
    file = join(scope.use(await temporaryFolder()).path, "records.db");
  });
  afterAll(() => scope.disposeAsync());

  recordContract(async () => new SqlRecordStore(new SqliteSql(file)));

  it("refuses what a newer version made", () => {
    const newer = `${file}-newer`;
    {
      using database = new DatabaseSync(newer);
      database.exec("PRAGMA user_version = 999");
    }
    expect(() => new SqliteSql(newer)).toThrow(/newer Penstock/);
  });
});

describe.skipIf(lackingPostgres() !== undefined)("in PostgreSQL", () => {
  const scope = new AsyncDisposableStack();
  const errors: unknown[] = [];
  let server: PostgresServer;
  let url: string;

  beforeAll(async () => {
    server = scope.use(await postgres());
    url = await server.newDatabase();
  });
  afterAll(() => scope.disposeAsync());

  const open = async (at: string) =>
    new SqlRecordStore(await PostgresSql.open({ url: at }, (error) => errors.push(error)));
  recordContract(() => open(url));

  it("refuses what a newer version made", async () => {
    const newer = await server.newDatabase();
    const client = new Client(newer);
    await client.connect();
    await client.query("CREATE TABLE penstock_schema (version INTEGER); INSERT INTO penstock_schema VALUES (999)");
    await client.end();
    await expect(open(newer)).rejects.toThrow(/newer Penstock/);
  });

  it("makes the schema once when many gateways start at once on an empty database", async () => {
    const empty = await server.newDatabase();
    const stores = await Promise.all(Array.from({ length: 8 }, () => open(empty)));
    expect(await stores[7]?.tenants()).toEqual([]);
    for (const store of stores) await store[Symbol.asyncDispose]();
  });

  it("works on when the server cut its idle connections", async () => {
    await using store = await open(url);
    await store.setting("any");
    const admin = new Client(url);
    await admin.connect();
    await admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'penstock'");
    await admin.end();
    await expect.poll(() => errors.length).toBeGreaterThan(0);
    expect(await store.setting("any")).toBeUndefined();
  });
});
