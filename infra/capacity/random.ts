/** Numbers in [0, 1) that are the same in each run (mulberry32), and distributions drawn from them. */
export interface Random {
  readonly uniform: () => number;
  readonly normal: () => number;
  /** With that mean. */
  readonly exponential: (mean: number) => number;
  readonly logNormal: (mean: number, deviation: number) => number;
  /** With mean 1 and that variance; 0 gives 1. */
  readonly gamma: (variance: number) => number;
  /** Events of a Poisson process with that mean; above 50 by the normal distribution. */
  readonly poisson: (mean: number) => number;
}

/** A source of numbers that is fixed by its seed. */
export function seeded(seed: number): Random {
  let state = seed | 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const logNormal = (mean: number, deviation: number): number => Math.exp(mean + deviation * normal());
  return {
    uniform,
    normal,
    logNormal,
    exponential: (mean) => -mean * Math.log(1 - uniform()),
    gamma: (variance) => (variance === 0 ? 1 : gammaOf(1 / variance, uniform, normal) * variance),
    poisson: (mean) => (mean > 50 ? Math.max(0, Math.round(mean + Math.sqrt(mean) * normal())) : few(mean, uniform)),
  };
}

/** Marsaglia and Tsang; a shape below 1 by way of one more. */
function gammaOf(shape: number, uniform: () => number, normal: () => number): number {
  if (shape < 1) return gammaOf(shape + 1, uniform, normal) * (1 - uniform()) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = normal();
    const v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(1 - uniform()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
  }
}

function few(mean: number, uniform: () => number): number {
  const limit = Math.exp(-mean);
  let count = 0;
  for (let product = uniform(); product > limit; product *= uniform()) count += 1;
  return count;
}
