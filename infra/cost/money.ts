/** A month in prices is 730 hours, as the clouds' own calculators have it. */
export const hoursPerMonth = 730;

/**
 * What something costs in a month, in millionths of a USD, so that sums are exact. `lowMicroUsd` is the sum of what has a
 * price, `highMicroUsd` of what has an upper bound. `unknown` names what has no price, which is not in the first;
 * `unbounded` what of it has no bound either, which is in neither. Unknown is never taken for zero.
 */
export interface Amount {
  readonly lowMicroUsd: number;
  readonly highMicroUsd: number;
  readonly unknown: readonly string[];
  readonly unbounded: readonly string[];
}

/** Nothing. */
export const zero: Amount = { lowMicroUsd: 0, highMicroUsd: 0, unknown: [], unbounded: [] };

/**
 * An amount of `name` from USD: what it costs and what it cannot exceed, null where nobody told.
 */
export function amountOf(name: string, usd: number | null, ceilingUsd: number | null = usd): Amount {
  return {
    lowMicroUsd: usd === null ? 0 : microUsdOf(usd),
    highMicroUsd: ceilingUsd === null ? 0 : microUsdOf(ceilingUsd),
    unknown: usd === null ? [name] : [],
    unbounded: ceilingUsd === null ? [name] : [],
  };
}

/** USD in millionths. */
export function microUsdOf(usd: number): number {
  return Math.round(usd * 1_000_000);
}

/** The sum; what is unknown in one of them is unknown in it. */
export function sumOf(amounts: readonly Amount[]): Amount {
  return {
    lowMicroUsd: amounts.reduce((sum, { lowMicroUsd }) => sum + lowMicroUsd, 0),
    highMicroUsd: amounts.reduce((sum, { highMicroUsd }) => sum + highMicroUsd, 0),
    unknown: [...new Set(amounts.flatMap(({ unknown }) => unknown))],
    unbounded: [...new Set(amounts.flatMap(({ unbounded }) => unbounded))],
  };
}

/** `amount` times `factor`, such as 0.6 of it. */
export function times({ lowMicroUsd, highMicroUsd, unknown, unbounded }: Amount, factor: number): Amount {
  return {
    lowMicroUsd: Math.round(lowMicroUsd * factor),
    highMicroUsd: Math.round(highMicroUsd * factor),
    unknown: factor === 0 ? [] : unknown,
    unbounded: factor === 0 ? [] : unbounded,
  };
}

/** Divides an amount among weights, so that the parts sum up to it. */
export function dividedAmount(amount: Amount, weights: readonly number[]): Amount[] {
  const lows = divided(amount.lowMicroUsd, weights);
  const highs = divided(amount.highMicroUsd, weights);
  const hasWeight = weights.some((weight) => weight > 0);
  return weights.map((weight, at) => {
    const hasPart = weight > 0 || !hasWeight;
    return {
      lowMicroUsd: lows[at] ?? 0,
      highMicroUsd: highs[at] ?? 0,
      unknown: hasPart ? amount.unknown : [],
      unbounded: hasPart ? amount.unbounded : [],
    };
  });
}

/** Of an hour, in place of a month. */
export function hourly(amount: Amount): Amount {
  return times(amount, 1 / hoursPerMonth);
}

/**
 * Divides a whole number among weights so that the parts' sum is that number: each gets its share rounded down, and the
 * units that are left go to the largest remainders, the first of equals first. Weights that are all 0 count the same.
 */
export function divided(whole: number, weights: readonly number[]): number[] {
  if (weights.length === 0) return [];
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return rounded(
    weights.map((weight) => (sum > 0 ? whole * (weight / sum) : whole / weights.length)),
    whole,
  );
}

/** Whole numbers near `shares` that add up to `total`: each rounded down, the largest remainders up. */
function rounded(shares: readonly number[], total: number): number[] {
  const parts = shares.map((share) => Math.floor(share));
  const order = shares
    .map((share, index) => ({ index, remainder: share - Math.floor(share) }))
    .toSorted((a, b) => b.remainder - a.remainder || a.index - b.index);
  const left = total - parts.reduce((sum, part) => sum + part, 0);
  const step = Math.sign(left);
  // Shares that were computed with fractions may miss the total by a unit on either side.
  for (let at = 0; at < Math.abs(left); at += 1) {
    const place = order.at(step > 0 ? at % order.length : -1 - (at % order.length));
    if (place !== undefined) parts[place.index] = (parts[place.index] ?? 0) + step;
  }
  return parts;
}

/** Cents of each, whose sum is the sum's own cents: what a column shows above its total. */
export function centsOf(microUsd: readonly number[]): number[] {
  const total = Math.round(microUsd.reduce((sum, each) => sum + each, 0) / 10_000);
  return rounded(
    microUsd.map((each) => each / 10_000),
    total,
  );
}

/** `71,773.60`, in USD. */
export function usdText(microUsd: number): string {
  return centsText(Math.round(microUsd / 10_000));
}

/** Cents as `71,773.60`. */
export function centsText(cents: number): string {
  const digits = Math.abs(cents).toString().padStart(3, "0");
  const whole = digits.slice(0, -2).replace(/\B(?=(\d{3})+$)/g, ",");
  return `${cents < 0 ? "-" : ""}${whole}.${digits.slice(-2)}`;
}

/** `71,773.60`, `10.00 to 20.00`, `at least 10.00`, `unknown, at most 20.00`, `unknown`. */
export function amountText(amount: Amount): string {
  return textOf(amount, Math.round(amount.lowMicroUsd / 10_000), Math.round(amount.highMicroUsd / 10_000));
}

/** A column of amounts, whose cents add up to the last text: the total's. */
export function columnTexts(amounts: readonly Amount[]): string[] {
  const lows = centsOf(amounts.map(({ lowMicroUsd }) => lowMicroUsd));
  const highs = centsOf(amounts.map(({ highMicroUsd }) => highMicroUsd));
  return [...amounts.map((amount, at) => textOf(amount, lows[at] ?? 0, highs[at] ?? 0)), amountText(sumOf(amounts))];
}

function textOf(
  { lowMicroUsd, highMicroUsd, unknown, unbounded }: Amount,
  lowCents: number,
  highCents: number,
): string {
  const low = centsText(lowCents);
  const high = centsText(highCents);
  const range = lowMicroUsd === highMicroUsd ? low : `${low} to ${high}`;
  if (unknown.length === 0) return range;
  if (unbounded.length > 0) return highMicroUsd === 0 ? "unknown" : `at least ${range}`;
  return lowMicroUsd === 0 ? `unknown, at most ${high}` : range;
}
