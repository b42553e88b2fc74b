/** One line of a bench's table. */
export interface Figure {
  readonly what: string;
  readonly value: number;
  readonly unit: "s" | "ms" | "MB";
  /** What it must stay under on 2 cores; null for a figure that is only there to compare with. */
  readonly target: number | null;
}

export const seconds = (since: number): number => (performance.now() - since) / 1_000;

/** The middle one; `share` 0.99 gives the 99th percentile. */
export function quantile(numbers: readonly number[], share = 0.5): number {
  const at = Math.min(numbers.length - 1, Math.floor(numbers.length * share));
  return numbers.toSorted((a, b) => a - b)[at] ?? Number.NaN;
}

/** The median of `runs` samples, taken one after the other. */
export async function repeat(runs: number, sample: () => Promise<number>): Promise<number> {
  const results: number[] = [];
  for (let run = 0; run < runs; run += 1) results.push(await sample());
  return quantile(results);
}

/** Prints figures as a table, or as JSON. */
export function printFigures(figures: readonly Figure[], json: boolean): void {
  if (json) {
    process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`);
    return;
  }
  for (const { what, value, unit, target } of figures) {
    const goal = target === null ? "" : `  target ${target} ${unit}: ${value < target ? "met" : "MISSED"}`;
    const number = value.toFixed(unit === "MB" ? 0 : 2).padStart(8);
    process.stdout.write(`${what.padEnd(52)} ${number} ${unit}${goal}\n`);
  }
}
