/** What a parameter or a column may be. */
export type SqlValue = string | number | null;

/** A row, by the names of its columns. PostgreSQL gives 64-bit numbers as text. */
export type SqlRow = Readonly<Record<string, unknown>>;

/** SQL that SQLite and PostgreSQL both understand, with parameters `$1`, `$2` and so on. */
export interface Sql extends AsyncDisposable {
  /** What is fastest: many where a statement is a round trip, one where binding many parameters is what costs. */
  readonly rowsPerInsert: number;
  rows(text: string, values?: readonly SqlValue[]): Promise<SqlRow[]>;
  /** All statements or none. */
  all(statements: readonly SqlStatement[]): Promise<void>;
}

export interface SqlStatement {
  readonly text: string;
  readonly values: readonly SqlValue[];
}

/** Whether a database refused a row because of a key or a reference. */
export class ConstraintError extends Error {}
