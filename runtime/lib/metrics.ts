import { collectDefaultMetrics, Gauge, Registry } from "prom-client";

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
