import { DatabaseError, Pool, type PoolClient, type QueryResult } from "pg";
import { migrations } from "./migrations.ts";
import { newerSchema } from "./sql-sqlite.ts";
import { ConstraintError, type Sql, type SqlRow, type SqlStatement, type SqlValue } from "./sql.ts";

/** Where a PostgreSQL server is. */
export interface PostgresOptions {
  /** `postgres://user:password@host:port/database`, with `?sslmode=verify-full` for TLS. */
  readonly url: string;
  /** Connections at most: each is a process on the server. */
  readonly maxConnections?: number;
}

const defaultMaxConnections = 4;
const connectTimeoutMs = 5_000;
const statementTimeoutMs = 30_000;

/** Of all advisory locks of the database, the one under which the schema changes: "penstock" in ASCII. */
const migrationLock = "8098987163466408811";

/** SQLSTATE class 23: integrity constraint violation. */
const constraintClass = "23";

/** A PostgreSQL database as `Sql`. */
export class PostgresSql implements Sql {
  /** PostgreSQL takes 65,535 parameters. */
  readonly rowsPerInsert = 500;
  readonly #pool: Pool;

  private constructor(pool: Pool) {
    this.#pool = pool;
  }

  /**
   * Connects and brings the schema up to date; of several gateways that do so at once, one does and the others wait.
   * `onError` hears of idle connections that broke. Throws `invalid_config` when a newer Penstock made the schema, and
   * the driver's own error when the server cannot be reached.
   */
  static async open(options: PostgresOptions, onError: (error: unknown) => void): Promise<PostgresSql> {
    const pool = new Pool({
      connectionString: options.url,
      max: options.maxConnections ?? defaultMaxConnections,
      connectionTimeoutMillis: connectTimeoutMs,
      statement_timeout: statementTimeoutMs,
      // The server's own limit does not help when the server hangs.
      query_timeout: statementTimeoutMs + connectTimeoutMs,
      application_name: "penstock",
    });
    pool.on("error", onError);
    const sql = new PostgresSql(pool);
    try {
      await sql.#transaction(migrate);
      return sql;
    } catch (error) {
      await pool.end();
      throw error;
    }
  }

  async rows(text: string, values: readonly SqlValue[] = []): Promise<SqlRow[]> {
    return (await run(this.#pool, { text, values })).rows;
  }

  async all(statements: readonly SqlStatement[]): Promise<void> {
    await this.#transaction(async (client) => {
      for (const statement of statements) await run(client, statement);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end();
  }

  async #transaction(work: (client: PoolClient) => Promise<void>): Promise<void> {
    const client = await this.#pool.connect();
    let broken = false;
    // The pool listens to idle connections alone: one that breaks between two statements would end this process.
    const onError = (): void => {
      broken = true;
    };
    client.on("error", onError);
    try {
      await client.query("BEGIN");
      await work(client);
      await client.query("COMMIT");
    } catch (error) {
      // A connection that cannot even roll back is not used again.
      await client.query("ROLLBACK").catch(() => (broken = true));
      throw error;
    } finally {
      client.off("error", onError);
      client.release(broken);
    }
  }
}

async function migrate(client: PoolClient): Promise<void> {
  await client.query(`SELECT pg_advisory_xact_lock(${migrationLock})`);
  await client.query("CREATE TABLE IF NOT EXISTS penstock_schema (version INTEGER NOT NULL)");
  const { rows } = await client.query<SqlRow>("SELECT version FROM penstock_schema");
  const version = Number(rows[0]?.["version"] ?? 0);
  if (version > migrations.length) throw newerSchema("in PostgreSQL");
  for (const step of migrations.slice(version)) for (const statement of step) await client.query(statement);
  await client.query("DELETE FROM penstock_schema");
  await client.query("INSERT INTO penstock_schema VALUES ($1)", [migrations.length]);
}

async function run(
  client: Pool | PoolClient,
  { text, values }: SqlStatement,
): Promise<QueryResult<Record<string, unknown>>> {
  try {
    return await client.query<Record<string, unknown>>(text, [...values]);
  } catch (error) {
    if (!(error instanceof DatabaseError) || error.code?.startsWith(constraintClass) !== true) throw error;
    throw new ConstraintError("a row was refused", { cause: error });
  }
}
