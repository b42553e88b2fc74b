/**
 * The schema, as steps that are run once each and in this order. A step that was released is never changed: what
 * follows is a new one. Times are Unix time in ms.
 */
export const migrations: readonly (readonly string[])[] = [
  [
    `CREATE TABLE tenants (
      id TEXT PRIMARY KEY,
      definition TEXT NOT NULL
    )`,
    `CREATE TABLE api_keys (
      id TEXT PRIMARY KEY,
      tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
      hash TEXT NOT NULL UNIQUE,
      prefix TEXT NOT NULL,
      name TEXT NOT NULL,
      is_admin INTEGER NOT NULL,
      created_ms BIGINT NOT NULL,
      expires_ms BIGINT,
      revoked_ms BIGINT,
      last_used_ms BIGINT
    )`,
    `CREATE INDEX api_keys_tenant ON api_keys (tenant)`,
    `CREATE TABLE usage_entries (
      id TEXT PRIMARY KEY,
      at_ms BIGINT NOT NULL,
      tenant TEXT NOT NULL,
      credential_id TEXT NOT NULL,
      model TEXT NOT NULL,
      adapter TEXT,
      request_class TEXT NOT NULL,
      status TEXT NOT NULL,
      prompt_tokens BIGINT NOT NULL,
      cached_tokens BIGINT NOT NULL,
      completion_tokens BIGINT NOT NULL,
      nano_usd BIGINT NOT NULL,
      duration_ms BIGINT NOT NULL
    )`,
    `CREATE INDEX usage_entries_at ON usage_entries (at_ms, id)`,
    `CREATE INDEX usage_entries_tenant ON usage_entries (tenant, at_ms)`,
    `CREATE TABLE settings (
      name TEXT PRIMARY KEY,
      value TEXT NOT NULL
    )`,
  ],
];
