import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import type { AdapterSpec } from "../../contracts/model.ts";
import { engineOf } from "../../engines/index.ts";
import { checkAdapter } from "../../lib/adapters/check.ts";
import { messageOf } from "../supervisor/call.ts";
import type { RunningEngine } from "../supervisor/start.ts";
import type { Ascent } from "./bring-up.ts";
import { askGolden, differenceOf } from "./golden.ts";
import { report, reportPhase, type AdapterRecord, type ModelRecord } from "./record.ts";

/** An engine reads a few hundred MB at most for an adapter. */
const adapterTimeoutMs = 120_000;

/** An adapter that is wanted and not loaded. */
export function newAdapter(spec: AdapterSpec): AdapterRecord {
  return {
    spec,
    state: "WAITING",
    reason: null,
    running: 0,
    leaving: false,
    lastUsedMs: performance.now(),
    golden: null,
    files: null,
  };
}

/** Fetches and checks the adapters that an engine must be given at its start; answers their paths by name. */
export async function startAdapters(ascent: Ascent): Promise<Record<string, string>> {
  const paths: Record<string, string> = {};
  for (const adapter of ascent.record.adapters.values()) {
    paths[adapter.spec.name] = await fetchAdapter(ascent, adapter);
    adapter.state = "READY";
  }
  return paths;
}

/**
 * Loads the adapters that a model shall have into an engine that has just started or woken: those used last, as many as
 * it takes; the others wait. One that cannot be loaded is FAILED and says why, and the model serves without it. Throws when
 * the engine takes none at all, or ends.
 */
export async function replayAdapters(ascent: Ascent, engine: RunningEngine): Promise<void> {
  const { record } = ascent;
  const described = engineOf(record.engineSpec);
  if (record.adapters.size === 0 || described.capabilities.adapters === "start") return;
  requireRuntimeAdapters(record);
  const { count } = described.adapterLimits(record.engineSpec);
  const wanted = [...record.adapters.values()].toSorted((a, b) => b.lastUsedMs - a.lastUsedMs);
  for (const adapter of wanted.slice(count)) adapter.state = "WAITING";
  reportPhase(record, "adapters", null);
  for (const adapter of wanted.slice(0, count)) {
    try {
      await bringAdapterUp(ascent, { engine, adapter });
    } catch (thrown) {
      if (engine.isGone || ascent.signal.aborted) throw thrown;
      const { message } = toPenstockError(thrown);
      ascent.host.log.warn({ model: record.id, adapter: adapter.spec.name, reason: message }, "adapter is not loaded");
    }
  }
}

/** Fetch, check, load, prove. Throws `adapter_invalid`, `engine_died`, `verification_failed`, or what the cache throws. */
export async function bringAdapterUp(
  ascent: Ascent,
  { engine, adapter }: { engine: RunningEngine; adapter: AdapterRecord },
): Promise<void> {
  const { record } = ascent;
  adapter.state = "LOADING";
  adapter.reason = null;
  const startedMs = performance.now();
  try {
    const path = await fetchAdapter(ascent, adapter);
    const described = engineOf(record.engineSpec);
    const answer = await engine.call(
      described.loadAdapter({ name: adapter.spec.name, servedName: record.id, path }),
      adapterTimeoutMs,
    );
    if (!answer.ok) {
      throw new PenstockError("adapter_invalid", `The engine refuses ${adapter.spec.name}: ${messageOf(answer)}`);
    }
    await proveAdapter(record, { engine, adapter });
  } catch (thrown) {
    const error = toPenstockError(thrown);
    adapter.state = "FAILED";
    adapter.reason = error.message;
    throw error;
  }
  adapter.state = "READY";
  adapter.lastUsedMs = performance.now();
  record.measuredMs.adapter = Math.round(adapter.lastUsedMs - startedMs);
}

/** Takes an adapter out of the engine. The adapter is still known, and its files stay on disk. */
export async function takeAdapterDown(
  record: ModelRecord,
  { engine, adapter }: { engine: RunningEngine; adapter: AdapterRecord },
): Promise<void> {
  const described = engineOf(record.engineSpec);
  const path = adapter.files?.entryPath ?? "";
  await engine.callAll(
    [described.unloadAdapter({ name: adapter.spec.name, servedName: record.id, path })],
    adapterTimeoutMs,
  );
  adapter.state = "WAITING";
  adapter.files?.[Symbol.dispose]();
  adapter.files = null;
}

/**
 * Shows that every adapter that was READY before a sleep still applies: a wake can lose them without an error. One that
 * does not is loaded anew. Throws `verification_failed` when that does not help.
 */
export async function proveAdapters(ascent: Ascent, engine: RunningEngine): Promise<void> {
  const { record } = ascent;
  for (const adapter of record.adapters.values()) {
    if (adapter.state !== "READY") continue;
    const intact = await proveAdapter(record, { engine, adapter }).then(
      () => true,
      () => false,
    );
    if (intact) continue;
    ascent.host.log.warn({ model: record.id, adapter: adapter.spec.name }, "adapter was lost; it is loaded again");
    await takeAdapterDown(record, { engine, adapter });
    await bringAdapterUp(ascent, { engine, adapter });
  }
}

/** Throws `unsupported` when the model's engine takes no adapters while it runs. */
export function requireRuntimeAdapters(record: ModelRecord): void {
  const { kind } = record.engineSpec;
  const described = engineOf(record.engineSpec);
  if (described.capabilities.adapters !== "runtime") {
    const remedy =
      described.capabilities.adapters === "start"
        ? "give them in the model's `adapters`, and load it anew"
        : "use vllm or embedded";
    throw new PenstockError("unsupported", `The ${kind} engine loads no adapters while it runs; ${remedy}.`);
  }
  if (described.adapterLimits(record.engineSpec).count === 0) {
    throw new PenstockError("unsupported", `${record.id} was loaded without adapters; set \`engine.lora\`.`);
  }
}

async function proveAdapter(
  record: ModelRecord,
  { engine, adapter }: { engine: RunningEngine; adapter: AdapterRecord },
): Promise<void> {
  const probes = engineOf(record.engineSpec).golden(record.engineSpec, `${record.id}:${adapter.spec.name}`);
  const now = await askGolden(engine, probes);
  if (now === null) return;
  if (adapter.golden === null) {
    adapter.golden = now;
    return;
  }
  const difference = differenceOf(adapter.golden, now);
  if (difference === null) return;
  throw new PenstockError(
    "verification_failed",
    `The adapter ${adapter.spec.name} does not answer as it did before (${difference}).`,
  );
}

async function fetchAdapter({ record, host, signal }: Ascent, adapter: AdapterRecord): Promise<string> {
  const { name, source, sha256 } = adapter.spec;
  const { format } = record.spec;
  const spec = { id: `${record.id}:${name}`, source, format };
  const files = await host.weights.ensure(sha256 === undefined ? spec : { ...spec, sha256 }, {
    signal,
    onProgress: ({ bytesDone, bytesTotal, bytesPerSecond, etaSeconds }) =>
      report(record, {
        phase: "adapters",
        bytes_done: bytesDone,
        bytes_total: bytesTotal,
        bytes_per_second: bytesPerSecond,
        eta_seconds: etaSeconds,
      }),
  });
  adapter.files?.[Symbol.dispose]();
  adapter.files = files;
  if (!files.fromCache) adapter.golden = null;
  const { rank } = engineOf(record.engineSpec).adapterLimits(record.engineSpec);
  const modelPath = record.files?.entryPath;
  // A model that the engine streams from the blob store has no files here to compare with yet.
  if (modelPath !== undefined && format !== "engine") {
    await checkAdapter({ adapterPath: files.entryPath, modelPath, format, maxRank: rank });
  }
  return files.entryPath;
}
