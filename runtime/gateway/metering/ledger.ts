import type { Usage, UsageEntry } from "../stores/record.ts";
import type { UsageRecord, UsageSink } from "./record.ts";

/** Usage in the record store, where it is summed up for bills. A record that it has already changes nothing. */
export class Ledger implements UsageSink {
  readonly #store: Pick<Usage, "appendUsage">;

  constructor(store: Pick<Usage, "appendUsage">) {
    this.#store = store;
  }

  async append(records: readonly UsageRecord[]): Promise<void> {
    await this.#store.appendUsage(records.map(entryOf));
  }
}

function entryOf(record: UsageRecord): UsageEntry {
  return {
    id: record.requestId,
    atMs: epochMs(record.time),
    tenant: record.tenant,
    credentialId: record.credentialId,
    model: record.model,
    adapter: record.adapter,
    requestClass: record.class,
    status: record.outcome === "complete" ? String(record.status) : record.outcome,
    promptTokens: record.promptTokens,
    cachedTokens: record.cachedTokens,
    completionTokens: record.completionTokens,
    nanoUsd: Math.round(record.costUsd * 1e9),
    durationMs: Math.round(record.durationMs),
  };
}

let last = { time: "", ms: 0 };

/** A time in ms. The last one is kept: records of a busy gateway come with the same time one after the other. */
function epochMs(time: string): number {
  if (time !== last.time) last = { time, ms: Date.parse(time) };
  return last.ms;
}
