import { at, notKnown } from "./values.ts";

/** Statements of a policy document in JSON; null: it is not known yet. What is no policy has none. */
export function statementsOf(document: unknown): readonly unknown[] | null {
  if (document === notKnown) return null;
  const policy = typeof document === "string" ? parsed(document) : document;
  const statements = at(policy, "Statement");
  if (Array.isArray(statements)) return statements;
  return statements === undefined ? [] : [statements];
}

/** Whether a statement gives something. */
export function allows(statement: unknown): boolean {
  return at(statement, "Effect") !== "Deny";
}

/** One string or several, as policies have them. */
export function strings(value: unknown): string[] {
  return [value].flat().filter((each) => typeof each === "string");
}

function parsed(document: string): unknown {
  try {
    return JSON.parse(document);
  } catch {
    return undefined;
  }
}
