import type { Tenant } from "../../runtime/contracts/tenant.ts";
import type { IdentityRecords, KeyRecord } from "../../runtime/gateway/identity/key-records.ts";

/** Records in memory, with a switch that makes them unreachable and a count of what was asked. */
export interface MemoryRecords extends IdentityRecords {
  isDown: boolean;
  finds: number;
}

export function memoryRecords(tenants: readonly Tenant[] = []): MemoryRecords {
  const keys = new Map<string, KeyRecord>();
  const byId = new Map(tenants.map((tenant) => [tenant.id, tenant]));
  const change = (id: string, changed: Partial<KeyRecord>): boolean => {
    const record = keys.get(id);
    if (record !== undefined) keys.set(id, { ...record, ...changed });
    return record !== undefined;
  };
  const reached = async (): Promise<void> => {
    if (records.isDown) throw new Error("the store is down");
  };
  const records: MemoryRecords = {
    isDown: false,
    finds: 0,
    keys: {
      async find(id) {
        records.finds += 1;
        await reached();
        return keys.get(id);
      },
      async insert(record) {
        await reached();
        if (keys.has(record.id)) throw new Error("this id is taken");
        keys.set(record.id, record);
      },
      async revoke(id, at) {
        await reached();
        return change(id, { revokedAt: Math.min(at, keys.get(id)?.revokedAt ?? at) });
      },
      async list(tenantId) {
        await reached();
        return [...keys.values()].filter((key) => tenantId === undefined || key.tenantId === tenantId);
      },
      async touch(id, at) {
        await reached();
        change(id, { usedAt: at });
      },
    },
    tenants: {
      async find(id) {
        await reached();
        return byId.get(id);
      },
      async put(tenant) {
        await reached();
        byId.set(tenant.id, tenant);
      },
      async remove(id) {
        await reached();
        return byId.delete(id);
      },
      async list() {
        await reached();
        return [...byId.values()].toSorted((a, b) => a.id.localeCompare(b.id));
      },
    },
  };
  return records;
}
