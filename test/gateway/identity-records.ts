import type { Tenant } from "../../runtime/contracts/tenant.ts";
import type { KeyRecord, ManagedRecords } from "../../runtime/gateway/identity/key-records.ts";

/** Records in memory, with a switch that makes them unreachable and counts of what was asked for. */
export interface MemoryRecords extends ManagedRecords {
  isDown: boolean;
  finds: number;
  tenantFinds: number;
}

export function memoryRecords(tenants: readonly Tenant[] = []): MemoryRecords {
  const keys = new Map<string, KeyRecord>();
  const byId = new Map(tenants.map((tenant) => [tenant.id, tenant]));
  const reach = async (): Promise<void> => {
    if (records.isDown) throw new Error("the store is down");
  };
  const change = (id: string, changed: Partial<KeyRecord>): void => {
    const record = keys.get(id);
    if (record !== undefined) keys.set(id, { ...record, ...changed });
  };
  const records: MemoryRecords = {
    isDown: false,
    finds: 0,
    tenantFinds: 0,
    async key(id) {
      records.finds += 1;
      await reach();
      return keys.get(id);
    },
    async keys(tenant) {
      await reach();
      return [...keys.values()].filter((key) => tenant === undefined || key.tenant === tenant);
    },
    async addKey(key) {
      await reach();
      if (keys.has(key.id)) throw new Error("this id is taken");
      keys.set(key.id, key);
    },
    async revokeKey(id, atMs) {
      await reach();
      const isEarlier = keys.has(id) && atMs < (keys.get(id)?.revokedMs ?? Infinity);
      if (isEarlier) change(id, { revokedMs: atMs });
      return isEarlier;
    },
    async touchKeys(used) {
      await reach();
      for (const [id, lastUsedMs] of used) change(id, { lastUsedMs });
    },
    async tenant(id) {
      records.tenantFinds += 1;
      await reach();
      return byId.get(id);
    },
    async tenants() {
      await reach();
      return [...byId.values()].toSorted((a, b) => a.id.localeCompare(b.id));
    },
    async putTenant(tenant) {
      await reach();
      byId.set(tenant.id, tenant);
    },
    async deleteTenant(id) {
      await reach();
      for (const key of keys.values()) if (key.tenant === id) keys.delete(key.id);
      return byId.delete(id);
    },
  };
  return records;
}
