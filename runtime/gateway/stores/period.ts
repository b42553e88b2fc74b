/** How often a budget starts anew: at midnight UTC, of each day or of the first of a month. */
export type BudgetPeriod = "day" | "month";

/** When the period that `atMs` (Unix time) is in ends. */
export function periodEnd(period: BudgetPeriod, atMs: number): number {
  const at = new Date(atMs);
  const [year, month] = [at.getUTCFullYear(), at.getUTCMonth()];
  return period === "day" ? Date.UTC(year, month, at.getUTCDate() + 1) : Date.UTC(year, month + 1, 1);
}

/** When the period that `atMs` is in began. */
export function periodStart(period: BudgetPeriod, atMs: number): number {
  const at = new Date(atMs);
  const [year, month] = [at.getUTCFullYear(), at.getUTCMonth()];
  return Date.UTC(year, month, period === "day" ? at.getUTCDate() : 1);
}
