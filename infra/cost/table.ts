import type { Levels } from "./report.ts";

/** A table of texts. `hasTotal`: its last row is one. */
export interface Table {
  readonly kind: "table";
  readonly id: string;
  readonly title: string;
  readonly note?: string;
  readonly columns: readonly { readonly name: string; readonly align: "left" | "right" }[];
  readonly rows: readonly (readonly string[])[];
  readonly hasTotal: boolean;
}

/** Sentences under a title. */
export interface List {
  readonly kind: "list";
  readonly id: string;
  readonly title: string;
  readonly lines: readonly string[];
}

/** What every form of a report shows, in its order. */
export interface CostDocument {
  readonly title: string;
  readonly subtitle: string;
  /** What a reader must know before any number: old prices, prices that nobody knows. */
  readonly warnings: readonly string[];
  readonly sections: readonly (Table | List)[];
}

/** A column of texts. */
export const left = (name: string): Table["columns"][number] => ({ name, align: "left" });
/** A column of numbers. */
export const right = (name: string): Table["columns"][number] => ({ name, align: "right" });
/** A column for each level. */
export const perLevel = [right("minimum"), right("expected"), right("maximum")];

/** `1 / 1.4 / 2`, or one number when all are the same. */
export function range({ minimum, expected, maximum }: Levels<number>): string {
  const all = [minimum, expected, maximum].map(number);
  return new Set(all).size === 1 ? number(minimum) : all.join(" / ");
}

/** With two digits at most. */
export function number(value: number): string {
  return Number(value.toFixed(2)).toString();
}

/** `42.4 %`. */
export function percent(share: number): string {
  return `${Number((share * 100).toFixed(1))} %`;
}
