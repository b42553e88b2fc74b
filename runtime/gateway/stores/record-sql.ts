import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import { tenant as tenantSchema, type Tenant } from "../../contracts/tenant.ts";
import type { KeyRecord } from "../identity/key-records.ts";
import type { RecordStore, UsageDimension, UsageEntry, UsageFilter, UsageSum } from "./record.ts";
import { ConstraintError, type Sql, type SqlStatement, type SqlValue } from "./sql.ts";

/** Rows that an export holds at a time. */
const pageRows = 1_000;

const dayMs = 86_400_000;

/** 64-bit numbers come as text from PostgreSQL. */
const number = z.union([z.number(), z.string()]).transform(Number).pipe(z.number());

const keyRow = z
  .object({
    id: z.string(),
    tenant: z.string(),
    hash: z.string(),
    prefix: z.string(),
    name: z.string(),
    is_admin: number,
    created_ms: number,
    expires_ms: number.nullable(),
    revoked_ms: number.nullable(),
    last_used_ms: number.nullable(),
  })
  .transform(
    ({
      is_admin,
      created_ms: createdMs,
      expires_ms: expiresMs,
      revoked_ms: revokedMs,
      last_used_ms: lastUsedMs,
      ...rest
    }): KeyRecord => ({
      ...rest,
      isAdmin: is_admin === 1,
      createdMs,
      expiresMs,
      revokedMs,
      lastUsedMs,
    }),
  );

/** Fields of an entry and their columns, in the order in which they are written. */
const usageColumns = {
  id: "id",
  atMs: "at_ms",
  tenant: "tenant",
  credentialId: "credential_id",
  model: "model",
  adapter: "adapter",
  requestClass: "request_class",
  status: "status",
  promptTokens: "prompt_tokens",
  cachedTokens: "cached_tokens",
  completionTokens: "completion_tokens",
  nanoUsd: "nano_usd",
  durationMs: "duration_ms",
} as const satisfies Record<keyof UsageEntry, string>;

const usageFields = Object.keys(usageColumns) as (keyof UsageEntry)[]; // the keys of a constant table
const usageNames = Object.values(usageColumns).join(", ");
/** Answers the fields by their own names, which both databases keep only when quoted. */
const usageSelection = usageFields.map((field) => `${usageColumns[field]} AS "${field}"`).join(", ");

const usageRow = z.object({
  id: z.string(),
  atMs: number,
  tenant: z.string(),
  credentialId: z.string(),
  model: z.string(),
  adapter: z.string().nullable(),
  requestClass: z.string(),
  status: z.string(),
  promptTokens: number,
  cachedTokens: number,
  completionTokens: number,
  nanoUsd: number,
  durationMs: number,
}) satisfies z.ZodType<UsageEntry>;

const sumRow = z.looseObject({
  requests: number,
  promptTokens: number,
  cachedTokens: number,
  completionTokens: number,
  nanoUsd: number,
});

const dimensionColumns = {
  tenant: "tenant",
  credentialId: "credential_id",
  model: "model",
  adapter: "adapter",
  requestClass: "request_class",
  day: `at_ms / ${dayMs} * ${dayMs}`,
} as const satisfies Record<UsageDimension, string>;

/** The record store on any database that speaks `Sql`. */
export class SqlRecordStore implements RecordStore {
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  async tenants(): Promise<Tenant[]> {
    const rows = await this.#sql.rows("SELECT definition FROM tenants ORDER BY id");
    return rows.map((row) => readTenant(row["definition"]));
  }

  async tenant(id: string): Promise<Tenant | undefined> {
    const [row] = await this.#sql.rows("SELECT definition FROM tenants WHERE id = $1", [id]);
    return row === undefined ? undefined : readTenant(row["definition"]);
  }

  async putTenant(tenant: Tenant): Promise<void> {
    await this.putTenants([tenant]);
  }

  async putTenants(tenants: readonly Tenant[]): Promise<void> {
    const text =
      "INSERT INTO tenants (id, definition) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET definition = excluded.definition";
    const statements = tenants.map((tenant) => ({ text, values: [tenant.id, JSON.stringify(tenant)] }));
    if (statements.length > 0) await this.#sql.all(statements);
  }

  async deleteTenant(id: string): Promise<boolean> {
    return (await this.#sql.rows("DELETE FROM tenants WHERE id = $1 RETURNING id", [id])).length > 0;
  }

  async keys(tenant?: string): Promise<KeyRecord[]> {
    const where = tenant === undefined ? "" : "WHERE tenant = $1";
    const text = `SELECT * FROM api_keys ${where} ORDER BY created_ms DESC, id`;
    return (await this.#sql.rows(text, tenant === undefined ? [] : [tenant])).map((row) => keyRow.parse(row));
  }

  async key(id: string): Promise<KeyRecord | undefined> {
    const [row] = await this.#sql.rows("SELECT * FROM api_keys WHERE id = $1", [id]);
    return row === undefined ? undefined : keyRow.parse(row);
  }

  async addKey(key: KeyRecord): Promise<void> {
    const { id, tenant, hash, prefix, name, isAdmin, createdMs, expiresMs, revokedMs, lastUsedMs } = key;
    try {
      await this.#sql.rows(
        `INSERT INTO api_keys (id, tenant, hash, prefix, name, is_admin, created_ms, expires_ms, revoked_ms, last_used_ms)
          VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
        [id, tenant, hash, prefix, name, isAdmin ? 1 : 0, createdMs, expiresMs, revokedMs, lastUsedMs],
      );
    } catch (error) {
      if (!(error instanceof ConstraintError)) throw error;
      const message = `The key ${id} exists already, or the tenant ${tenant} does not; make the tenant first.`;
      throw new PenstockError("invalid_value", message, { cause: error });
    }
  }

  async revokeKey(id: string, atMs: number): Promise<boolean> {
    const text =
      "UPDATE api_keys SET revoked_ms = $2 WHERE id = $1 AND (revoked_ms IS NULL OR revoked_ms > $2) RETURNING id";
    return (await this.#sql.rows(text, [id, atMs])).length > 0;
  }

  async touchKeys(used: ReadonlyMap<string, number>): Promise<void> {
    const text = "UPDATE api_keys SET last_used_ms = $2 WHERE id = $1 AND (last_used_ms IS NULL OR last_used_ms < $2)";
    // In one order everywhere, or two gateways could wait for each other.
    const ids = [...used].toSorted(([a], [b]) => (a < b ? -1 : 1));
    await this.#sql.all(ids.map((values) => ({ text, values })));
  }

  async appendUsage(entries: readonly UsageEntry[]): Promise<void> {
    const { rowsPerInsert } = this.#sql;
    const statements: SqlStatement[] = [];
    let text = "";
    for (let at = 0; at < entries.length; at += rowsPerInsert) {
      const chunk = entries.slice(at, at + rowsPerInsert);
      if (at === 0 || chunk.length < rowsPerInsert) text = insertText(chunk.length);
      const values: SqlValue[] = [];
      for (const entry of chunk) for (const field of usageFields) values.push(storable(entry[field]));
      statements.push({ text, values });
    }
    await this.#sql.all(statements);
  }

  async sumUsage(filter: UsageFilter, groupBy: readonly UsageDimension[]): Promise<UsageSum[]> {
    const { where, values } = condition(filter);
    const sums = (["promptTokens", "cachedTokens", "completionTokens", "nanoUsd"] as const)
      .map((field) => `COALESCE(SUM(${usageColumns[field]}), 0) AS "${field}"`)
      .join(", ");
    const groups = groupBy.map((dimension) => `${dimensionColumns[dimension]} AS "${dimension}"`);
    const order = groupBy.map((_, at) => at + 1).join(", ");
    const rows = await this.#sql.rows(
      `SELECT ${[...groups, `COUNT(*) AS requests`, sums].join(", ")} FROM usage_entries WHERE ${where}
        ${order === "" ? "" : `GROUP BY ${order} ORDER BY ${order}`}`,
      values,
    );
    return rows.map((row) => {
      const { requests, promptTokens, cachedTokens, completionTokens, nanoUsd } = sumRow.parse(row);
      const group = Object.fromEntries(groupBy.map((dimension) => [dimension, groupValue(dimension, row[dimension])]));
      return { group, requests, promptTokens, cachedTokens, completionTokens, nanoUsd };
    });
  }

  async *usage(filter: UsageFilter): AsyncIterable<UsageEntry> {
    const { where, values } = condition(filter);
    let [atMs, id] = [filter.fromMs, ""];
    for (;;) {
      const [time, key] = [values.length + 1, values.length + 2];
      const rows = await this.#sql.rows(
        `SELECT ${usageSelection} FROM usage_entries
          WHERE ${where} AND (at_ms > $${time} OR (at_ms = $${time} AND id > $${key}))
          ORDER BY at_ms, id LIMIT ${pageRows}`,
        [...values, atMs, id],
      );
      for (const row of rows) {
        const entry = usageRow.parse(row);
        ({ atMs, id } = entry);
        yield entry;
      }
      if (rows.length < pageRows) return;
    }
  }

  async setting(name: string): Promise<string | undefined> {
    const [row] = await this.#sql.rows("SELECT value FROM settings WHERE name = $1", [name]);
    return row === undefined ? undefined : z.string().parse(row["value"]);
  }

  async putSetting(name: string, value: string): Promise<void> {
    await this.#sql.rows(
      "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
      [name, value],
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sql[Symbol.asyncDispose]();
  }
}

/** An INSERT of so many entries. */
function insertText(count: number): string {
  const width = usageFields.length;
  const rows = Array.from(
    { length: count },
    (_, at) => `(${usageFields.map((__, column) => `$${at * width + column + 1}`).join(", ")})`,
  );
  return `INSERT INTO usage_entries (${usageNames}) VALUES ${rows.join(", ")} ON CONFLICT (id) DO NOTHING`;
}

/** What both databases take: one entry that one of them refuses would hold up all that come after it. */
function storable(value: SqlValue): SqlValue {
  if (typeof value === "string")
    return value.includes("\0") ? value.replaceAll("\0", "").toWellFormed() : value.toWellFormed();
  return typeof value === "number"
    ? Math.round(Math.min(Number.isNaN(value) ? 0 : value, Number.MAX_SAFE_INTEGER))
    : value;
}

function condition({ fromMs, toMs, tenant, model }: UsageFilter): { where: string; values: SqlValue[] } {
  const values: SqlValue[] = [fromMs, toMs];
  let where = "at_ms >= $1 AND at_ms < $2";
  if (tenant !== undefined) where += ` AND tenant = $${values.push(tenant)}`;
  if (model !== undefined) where += ` AND model = $${values.push(model)}`;
  return { where, values };
}

function groupValue(dimension: UsageDimension, value: unknown): string | number | null {
  return dimension === "day" ? number.parse(value) : z.string().nullable().parse(value);
}

function readTenant(definition: unknown): Tenant {
  return tenantSchema.parse(JSON.parse(z.string().parse(definition)));
}
