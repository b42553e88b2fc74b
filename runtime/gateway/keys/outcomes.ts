import type { Tenant } from "../../contracts/tenant.ts";
import type { KeyView, NewKeyView } from "./key-service.ts";

/** What a command gave: `json` for programs, `text` for people. */
export interface Outcome {
  readonly json: unknown;
  readonly text: string;
}

export function newKeyOutcome(created: NewKeyView): Outcome {
  return { json: created, text: `${created.key}\nThis is the only time that the key is shown.` };
}

export function keysOutcome(keys: readonly KeyView[]): Outcome {
  return { json: keys, text: table(keys.map(keyRow)) };
}

export function tenantsOutcome(tenants: readonly Tenant[]): Outcome {
  return { json: tenants, text: table(tenants.map(tenantRow)) };
}

export function tenantOutcome(tenant: Tenant): Outcome {
  return { json: tenant, text: table([tenantRow(tenant)]) };
}

function keyRow(key: KeyView): Record<string, string> {
  const { prefix, tenant, name, state, created, expires, used } = key;
  const kind = key.admin ? "admin" : "";
  return { key: prefix, tenant, name, kind, state, created, expires: expires ?? "never", used: used ?? "never" };
}

function tenantRow({ id, models, priority, weight, limits, allowedAddresses }: Tenant): Record<string, string> {
  const { requestsPerMinute, tokensPerMinute, concurrentRequests, budget } = limits;
  return {
    tenant: id,
    models: models.join(","),
    priority: String(priority),
    weight: String(weight),
    "requests/min": limitText(requestsPerMinute),
    "tokens/min": limitText(tokensPerMinute),
    concurrent: limitText(concurrentRequests),
    budget: budget === undefined ? "-" : `${budget.usd} USD/${budget.period}`,
    addresses: allowedAddresses.join(",") || "any",
  };
}

function limitText(value: number | undefined): string {
  return value === undefined ? "-" : String(value);
}

/** Rows as columns of text, with the fields' names above. */
function table(rows: readonly Record<string, string>[]): string {
  const [first] = rows;
  if (first === undefined) return "none";
  const lines = [Object.keys(first), ...rows.map((row) => Object.values(row))];
  const widths = Object.keys(first).map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  const padded = lines.map((line) => line.map((cell, column) => cell.padEnd(widths[column] ?? 0)));
  return padded.map((line) => line.join("  ").trimEnd()).join("\n");
}
