/** What a counter gained per second. */
export function rate(series: string, window = "5m"): string {
  return `rate(${series}[${window}])`;
}

/** A quantile (0 to 1) of a histogram, by label. */
export function quantile(of: number, histogram: string, by: string): string {
  return `histogram_quantile(${of}, sum by (le, ${by}) (rate(${histogram}_bucket[5m])))`;
}

/** Median and the slow ends of a histogram, by label. */
export function spread(histogram: string, by: string): { expr: string; legend: string }[] {
  return [0.5, 0.95, 0.99].map((of) => ({ expr: quantile(of, histogram, by), legend: `p${of * 100} {{${by}}}` }));
}

/** `part` of `whole`; no line where there is no whole. */
export function share(part: string, whole: string): string {
  return `${part} / (${whole} > 0)`;
}
