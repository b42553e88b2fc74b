/** `12.3 GiB`. */
export function gib(value: number): string {
  return `${value.toFixed(1)} GiB`;
}

/** `$6.88/h`, or that nobody knows. */
export function usdPerHour(value: number | null): string {
  return value === null ? "price unknown" : `$${money(value)}/h`;
}

/** Dollars with as many digits as small sums need. */
export function money(value: number): string {
  return value.toFixed(value < 10 ? 3 : 2).replace(/(\.\d\d)0$/, "$1");
}

/** `1 node`, `2 nodes`. */
export function count(value: number, word: string): string {
  return `${value} ${word}${value === 1 ? "" : "s"}`;
}

/** Rounded for a plan: digits beyond these are noise, and goldens must not move with them. */
export function round(value: number, digits = 2): number {
  return Number(value.toFixed(digits));
}
