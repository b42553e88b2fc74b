/** Buckets of a power of ten: quantiles are right to 3 %. */
const perDecade = 80;
/** The first bucket holds everything up to this. */
const least = 1e-3;
const decades = 9;

/** How many buckets every histogram has. */
export const buckets = perDecade * decades;

/** Upper bound of a bucket, in the unit of the values. */
export function bucketBound(bucket: number): number {
  return least * 10 ** (bucket / perDecade);
}

/** The bucket of a value. */
export function bucketOf(value: number): number {
  if (value <= least) return 0;
  return Math.min(buckets - 1, Math.ceil(Math.log10(value / least) * perDecade));
}

/** Weighted values by their size, from 0.001 to a million, such as seconds. */
export class Histogram {
  readonly weights = new Float64Array(buckets);
  #total = 0;

  /** All weights together. */
  get total(): number {
    return this.#total;
  }

  add(value: number, weight = 1): void {
    const bucket = bucketOf(value);
    this.weights[bucket] = (this.weights[bucket] ?? 0) + weight;
    this.#total += weight;
  }

  /** Adds `weight` of a distribution over the buckets, whose parts sum up to 1. */
  addAll(parts: Float64Array, weight: number): void {
    for (let bucket = 0; bucket < buckets; bucket += 1) {
      this.weights[bucket] = (this.weights[bucket] ?? 0) + (parts[bucket] ?? 0) * weight;
    }
    this.#total += weight;
  }

  /** The value that `share` of the weight does not exceed; null when there is none. */
  quantile(share: number): number | null {
    if (this.#total === 0) return null;
    let left = share * this.#total;
    for (let bucket = 0; bucket < buckets; bucket += 1) {
      left -= this.weights[bucket] ?? 0;
      if (left <= 1e-9 * this.#total) return bucketBound(bucket);
    }
    return bucketBound(buckets - 1);
  }
}
