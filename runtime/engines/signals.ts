import { engineSignals, type EngineMetrics, type EngineSignal, type MetricName, type Sample } from "./engine.ts";

/** What a metrics page says. */
export interface SignalReading {
  /** Null: not there. Never read as 0. */
  readonly values: Readonly<Record<EngineSignal, number | null>>;
  /** Signals that the engine has a name for and the page has not. */
  readonly missing: readonly EngineSignal[];
}

/** One sample of a page: `name{labels} value`. */
const sampleLine = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const labelPair = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** Reads the signals of an engine from its Prometheus page: for each the first name that the page has. */
export function readSignals({ names }: EngineMetrics, page: string): SignalReading {
  const wanted = new Set(Object.values(names).flatMap((each) => each.map(({ name }) => name)));
  const samples = new Map<string, Sample[]>();
  for (const line of page.split("\n")) {
    const found = sampleLine.exec(line);
    const name = found?.[1];
    if (name === undefined || !wanted.has(name)) continue;
    const value = Number(found?.[3]);
    if (!Number.isFinite(value)) continue;
    const sample = { value, labels: labelsOf(found?.[2] ?? "") };
    const known = samples.get(name);
    if (known === undefined) samples.set(name, [sample]);
    else known.push(sample);
  }
  const values = Object.fromEntries(
    engineSignals.map((signal) => [signal, firstOf(names[signal], samples)]),
    // Every signal is a key, since `engineSignals` lists them all.
  ) as Record<EngineSignal, number | null>;
  return { values, missing: engineSignals.filter((signal) => names[signal].length > 0 && values[signal] === null) };
}

/** A hundred times what the largest node of today holds for a small model. */
const maxKvTokens = 1e10;

/** Tokens that fit in an engine's KV cache, from its Prometheus page; null when it does not say, or says nonsense. */
export function readKvTokens(metrics: EngineMetrics, page: string): number | null {
  const lines = page.split("\n");
  const tokens = metrics.kvTokens((name) => lines.flatMap((line) => sampleOf(line, name) ?? []));
  return tokens !== null && tokens >= 1 && tokens <= maxKvTokens ? Math.floor(tokens) : null;
}

function sampleOf(line: string, name: string): Sample | undefined {
  if (!line.startsWith(name)) return undefined;
  const found = sampleLine.exec(line);
  const value = Number(found?.[3]);
  return found?.[1] === name && Number.isFinite(value) ? { value, labels: labelsOf(found[2] ?? "") } : undefined;
}

function firstOf(names: readonly MetricName[], samples: ReadonlyMap<string, readonly Sample[]>): number | null {
  for (const { name, labels = {} } of names) {
    const matching = (samples.get(name) ?? []).filter((sample) =>
      Object.entries(labels).every(([label, value]) => sample.labels.get(label) === value),
    );
    if (matching.length > 0) return matching.reduce((sum, { value }) => sum + value, 0);
  }
  return null;
}

function labelsOf(text: string): ReadonlyMap<string, string> {
  return new Map([...text.matchAll(labelPair)].map(([, name = "", value = ""]) => [name, value]));
}
