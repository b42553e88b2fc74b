import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import type { Tier } from "../../contracts/model.ts";
import { engineOf } from "../../engines/index.ts";
import type { RunningEngine } from "../supervisor/start.ts";
import { bringUp, letGo, type Ascent } from "./bring-up.ts";
import type { ModelHost } from "./host.ts";
import type { ModelRecord } from "./record.ts";
import { putToSleep, wake } from "./sleep.ts";

/** Where a model can be taken down to. */
export type LowerTier = Exclude<Tier, "GPU_RESIDENT">;

/**
 * Any tier -> GPU_RESIDENT and READY: wakes an engine that sleeps, or starts one. Answers the engine that serves.
 * Throws why the model did not come up, which the record then says as well.
 */
export async function ascend(ascent: Ascent): Promise<RunningEngine> {
  const { record, host, signal } = ascent;
  try {
    signal.throwIfAborted();
    if (!(await isWoken(ascent))) await bringUp(ascent);
    signal.throwIfAborted();
  } catch (thrown) {
    await fell(record, { host, error: toPenstockError(signal.aborted ? signal.reason : thrown) });
  }
  const { engine } = record;
  if (engine === null) throw new PenstockError("engine_died", `The engine of ${record.id} is gone.`);
  record.state = "READY";
  record.tier = "GPU_RESIDENT";
  record.reason = null;
  record.lastUsedMs = performance.now();
  record.failures.served();
  host.log.info({ model: record.id, pid: engine.pid, measuredMs: record.measuredMs }, "model is ready");
  if (record.files === null) void fillCache(record, host);
  return engine;
}

/** Down to a tier. No request may be running. Throws what `putToSleep` throws, or what the cache throws on removal. */
export async function descend(record: ModelRecord, { host, to }: { host: ModelHost; to: LowerTier }): Promise<void> {
  const { engine } = record;
  if (to === "DRAM_CACHED") {
    if (engine === null || record.state === "SLEEPING") return;
    return sleep(record, { host, engine });
  }
  const started = performance.now();
  await letGo(record, host);
  if (engine !== null) record.measuredMs.unload = Math.round(performance.now() - started);
  record.state = "UNLOADED";
  if (record.tier !== "REMOTE") record.tier = "NVME_CACHED";
  if (to === "NVME_CACHED") return;
  await host.weights.remove(record.spec);
  record.tier = "REMOTE";
}

/** Notes that an engine ended by itself: the weights are still on disk. */
export async function crashed(record: ModelRecord, { host, words }: { host: ModelHost; words: string }): Promise<void> {
  const pid = record.engine?.pid;
  await letGo(record, host);
  record.state = "UNLOADED";
  if (record.tier !== "REMOTE") record.tier = "NVME_CACHED";
  record.crashes += 1;
  record.reason = `The engine stopped: ${words}`;
  record.failures.failed(new PenstockError("engine_died", record.reason));
  host.log.error({ model: record.id, pid, words }, "engine stopped by itself");
}

/** Whether a load ended because somebody wanted it to, so that nothing is wrong with the model. */
export function isCancelled({ code }: PenstockError): boolean {
  return code === "model_not_ready" || code === "draining";
}

/** Whether a sleeping engine was brought back. One that cannot be, or is not what it was, is replaced by a new one. */
async function isWoken(ascent: Ascent): Promise<boolean> {
  const { record, host } = ascent;
  const { engine } = record;
  if (engine === null) return false;
  try {
    await wake(ascent, engine);
    return true;
  } catch (thrown) {
    const error = toPenstockError(thrown);
    if (error.code === "insufficient_gpu_memory") throw error;
    host.log.error({ model: record.id, reason: error.message }, "wake failed; the engine is started anew");
    await letGo(record, host);
    return false;
  }
}

async function fell(record: ModelRecord, { host, error }: { host: ModelHost; error: PenstockError }): Promise<never> {
  // Others have its GPU memory; it can go on sleeping.
  if (error.code === "insufficient_gpu_memory" && record.engine !== null) throw error;
  await letGo(record, host);
  record.state = isCancelled(error) ? "UNLOADED" : "FAILED";
  record.reason = error.message;
  if (!isCancelled(error)) record.failures.failed(error);
  const detail = error.code === "internal_error" ? { err: error.cause } : { code: error.code, reason: error.message };
  host.log.warn({ model: record.id, ...detail }, "model failed to load");
  throw error;
}

async function sleep(record: ModelRecord, { host, engine }: { host: ModelHost; engine: RunningEngine }): Promise<void> {
  // No request may reach an engine that is going to sleep: some die of it.
  record.state = "SLEEPING";
  try {
    await putToSleep(record, engine);
    record.load = null;
  } catch (thrown) {
    const error = toPenstockError(thrown);
    if (error.code === "insufficient_memory") {
      record.state = "READY";
      throw error;
    }
    await letGo(record, host);
    record.state = "UNLOADED";
    record.tier = "NVME_CACHED";
    record.reason = `The engine did not go to sleep: ${error.message}`;
    throw error;
  }
}

/** Brings a model to disk that its engine read straight from the blob store, so that the next start reads from disk. */
async function fillCache(record: ModelRecord, host: ModelHost): Promise<void> {
  if (!engineOf(record.engineSpec).streams(record.engineSpec, record.spec.source)) return;
  const gone = new AbortController();
  void record.engine?.exited.then(() => gone.abort(new PenstockError("model_not_ready", "The engine has ended.")));
  try {
    using files = await host.weights.ensure(record.spec, { signal: gone.signal, onProgress: () => undefined });
    record.sizeBytes = files.sizeBytes;
  } catch (thrown) {
    const { message } = toPenstockError(thrown);
    host.log.warn({ model: record.id, reason: message }, "model serves from the blob store and could not be cached");
  }
}
