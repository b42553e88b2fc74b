import { setTimeout as delay } from "node:timers/promises";
import type { EngineLoad } from "../../contracts/agent.ts";
import type { EngineMetrics } from "../../engines/engine.ts";
import { readKvTokens, readSignals } from "../../engines/signals.ts";
import { engineOf } from "../../engines/index.ts";
import type { RunningEngine } from "../supervisor/start.ts";
import type { ModelHost } from "./host.ts";
import type { ModelRecord } from "./record.ts";

const scrapeTimeoutMs = 2_000;

/**
 * Keeps `record.load` as fresh as the engine's metrics, until the engine is gone: a heartbeat never waits for an engine.
 * A page that does not come, or lacks a signal, shows as null, never as 0.
 */
export async function followMetrics(record: ModelRecord, engine: RunningEngine, host: ModelHost): Promise<void> {
  const described = engineOf(record.engineSpec);
  if (engine.launch.ready === null) return;
  const stop = new AbortController();
  void engine.exited.then(() => stop.abort());
  let told = "";
  while (!engine.isGone && record.engine === engine) {
    if (record.state === "READY") record.load = await readLoad(described.metrics(record.engineSpec), engine);
    const missing = record.load?.missing_signals.join(", ") ?? "";
    if (missing !== told && missing !== "") {
      host.log.warn({ model: record.id, missing }, "the engine's metrics page lacks signals: a name has changed");
    }
    told = missing;
    await delay(host.scrapeIntervalMs, undefined, { signal: stop.signal, ref: false }).catch(() => undefined);
  }
}

async function readLoad(metrics: EngineMetrics, engine: RunningEngine): Promise<EngineLoad | null> {
  const page = await engine.call(metrics.call, scrapeTimeoutMs).catch(() => undefined);
  if (page?.ok !== true) return null;
  const { values, missing } = readSignals(metrics, page.text);
  const { prefixHitsTotal: hits, prefixQueriesTotal: queries } = values;
  return {
    running: values.running,
    waiting: values.waiting,
    kv_usage: values.kvUsage,
    kv_hit_rate: hits === null || queries === null || queries === 0 ? null : hits / queries,
    kv_tokens: readKvTokens(metrics, page.text),
    missing_signals: [...missing],
  };
}
