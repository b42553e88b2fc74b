import { collectDefaultMetrics, Gauge, Registry, type Histogram } from "prom-client";

/** A registry with the process's own metrics, named `<prefix>_process_…` and `<prefix>_nodejs_…`. */
export function createRegistry(prefix: string): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: `${prefix}_` });
  return registry;
}

/** One line of a gauge: its labels and its value. */
export type GaugeRow<Label extends string> = readonly [labels: Record<Label, string>, value: number];

/** A gauge that is read when it is scraped, so that no second copy of the state is kept. */
export function liveGauge<Label extends string>(
  registry: Registry,
  about: { readonly name: string; readonly help: string; readonly labelNames: readonly Label[] },
  rows: () => Iterable<GaugeRow<Label>>,
): void {
  const gauge = new Gauge({
    ...about,
    registers: [],
    collect() {
      gauge.reset();
      for (const [labels, value] of rows()) gauge.set(labels, value);
    },
  });
  registry.registerMetric(gauge);
}

/** What was observed of one line of a histogram. */
export class Distribution {
  readonly #bounds: readonly number[];
  /** Of each bucket by itself; the last one is beyond all bounds. */
  readonly counts: number[];
  sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.counts = Array.from({ length: bounds.length + 1 }, () => 0);
  }

  observe(value: number): void {
    const bounds = this.#bounds;
    let at = 0;
    while (at < bounds.length && value > (bounds[at] ?? Infinity)) at += 1;
    this.counts[at] = (this.counts[at] ?? 0) + 1;
    this.sum += value;
  }
}

/**
 * A histogram whose lines its owner keeps and counts in, read when it is scraped: prom-client's own checks the labels of
 * each observation and puts a key together, which is most of its work. `lines` has one for each set of labels.
 */
export function liveHistogram<Label extends string>(
  registry: Registry,
  about: { readonly name: string; readonly help: string; readonly buckets: readonly number[] },
  lines: () => Iterable<readonly [labels: Record<Label, string>, distribution: Distribution]>,
): void {
  const { name, help, buckets } = about;
  const values = function* () {
    for (const [labels, { counts, sum }] of lines()) {
      let count = 0;
      for (const [at, added] of counts.entries()) {
        count += added;
        yield { metricName: `${name}_bucket`, labels: { le: buckets[at] ?? "+Inf", ...labels }, value: count };
      }
      yield { metricName: `${name}_sum`, labels, value: sum };
      yield { metricName: `${name}_count`, labels, value: count };
    }
  };
  const metric = {
    name,
    help,
    type: "histogram",
    aggregator: "sum",
    get: async () => ({ name, help, type: "histogram", aggregator: "sum", values: [...values()] }),
  };
  // A registry asks a metric for its name and what `get` answers, and its type has one class for each kind.
  registry.registerMetric(metric as unknown as Histogram);
}
