import { setTimeout as delay } from "node:timers/promises";
import type { RunningEngine } from "./start.ts";

/** How an engine is watched while it serves. */
export interface HealthOptions {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Probes in a row that fail before the engine counts as hung. */
  readonly failures: number;
}

/** A hung engine is found after about 30 s, and one that is slow for a while is left alone. */
export const defaultHealth: HealthOptions = { intervalMs: 5_000, timeoutMs: 5_000, failures: 3 };

/**
 * Watches an engine until it is gone. One that hangs without dying is killed, so that it is handled like any crash; its
 * last words say why.
 */
export async function watchHealth(engine: RunningEngine, options: HealthOptions): Promise<void> {
  const { health } = engine.launch;
  if (health === null) return;
  const stop = new AbortController();
  void engine.exited.then(() => stop.abort());
  let failures = 0;
  while (!engine.isGone) {
    const waited = await delay(options.intervalMs, true, { signal: stop.signal, ref: false }).catch(() => false);
    if (!waited) return;
    const answer = await engine.call(health, options.timeoutMs).catch(() => undefined);
    failures = answer?.ok === true ? 0 : failures + 1;
    if (failures < options.failures || engine.isGone) continue;
    engine.output.add(`Error: the engine hung: ${health.path} failed ${failures} times in a row`);
    await engine.stop(0);
  }
}
