import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** How many values a flag takes: none, one, or all up to the next flag. */
export type Arity = "switch" | "value" | "values";

/** The flags of a program that the simulator knows, with their names as they are typed. */
export type FlagTable = Readonly<Record<string, Arity>>;

/** A flag table from rows of flags with a space between. */
export function flagTable(rows: {
  readonly switches: readonly string[];
  readonly values: readonly string[];
}): FlagTable {
  const entries = (lines: readonly string[], arity: Arity): [string, Arity][] =>
    lines.flatMap((line) => line.split(" ")).map((flag) => [flag, arity]);
  return Object.fromEntries([...entries(rows.switches, "switch"), ...entries(rows.values, "value")]);
}

/** A command line, read. */
export interface ParsedArguments {
  readonly positionals: readonly string[];
  /** Values by flag, in order; a switch has an empty list. */
  readonly flags: ReadonlyMap<string, readonly string[]>;
}

/** The command line is wrong: what the program prints before it ends with exit code 2. */
export class UsageError extends Error {}

/** How one program reads its command line. */
export interface Grammar {
  /** Name in front of its messages. */
  readonly program: string;
  readonly table: FlagTable;
  /** Further flags that the real program knows, as its help lists them; null when there is no such list. */
  readonly help: ReadonlySet<string> | null;
  /** `argparse`: `a_b` is `a-b`, `--no-x` turns a switch off. `plain`: flags are what they are. */
  readonly style: "argparse" | "plain";
}

/** Reads a command line. Throws `UsageError` at a flag that the program does not know. */
export function parseArguments(argv: readonly string[], grammar: Grammar): ParsedArguments {
  const positionals: string[] = [];
  const flags = new Map<string, string[]>();
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index] ?? "";
    if (!/^--?[a-zA-Z]/.test(word)) {
      positionals.push(word);
      continue;
    }
    const equals = word.indexOf("=");
    const flag = nameOf(equals === -1 ? word : word.slice(0, equals), grammar);
    const values = flags.get(flag) ?? [];
    flags.set(flag, values);
    if (equals !== -1) {
      values.push(word.slice(equals + 1));
      continue;
    }
    const wanted = arityOf(flag, grammar);
    const most = { switch: 0, value: 1, values: Infinity, unknown: 1 }[wanted];
    for (let taken = 0; taken < most; taken += 1) {
      const next = argv[index + 1];
      if (next === undefined || /^--?[a-zA-Z]/.test(next)) {
        if (wanted === "value") throw usageError(grammar, `argument ${flag}: expected one argument`);
        break;
      }
      values.push(next);
      index += 1;
    }
  }
  return { positionals, flags };
}

/** The flags that the help pages in a folder list for a program; null when there is no page of it. */
export function readHelp(folder: string, program: string): ReadonlySet<string> | null {
  let names: string[];
  try {
    names = readdirSync(folder).filter((name) => name.startsWith(`${program}-`));
  } catch {
    return null;
  }
  if (names.length === 0) return null;
  const lines = names.flatMap((name) => readFileSync(join(folder, name), "utf8").split("\n"));
  // A line of flags begins with one; what follows two spaces says what they do.
  const flags = lines.filter((line) => /^\s*-/.test(line)).map((line) => line.trim().replace(/(?<!,) {2,}\w.*$/, ""));
  return new Set(flags.flatMap((line) => line.match(/(?<![\w-])--?[a-zA-Z][\w-]*/g) ?? []));
}

function nameOf(typed: string, grammar: Grammar): string {
  const known = (flag: string): boolean => flag in grammar.table || grammar.help?.has(flag) === true;
  const dashed = grammar.style === "argparse" ? typed.replaceAll("_", "-") : typed;
  const candidates = [typed, dashed, dashed.replace(/\..*$/, ""), dashed.replace(/^--no-/, "--")];
  // With the real help at hand, only what stands in it exists.
  const exists = candidates.find((flag) => (grammar.help === null ? known(flag) : inHelp(flag, grammar.help)));
  if (exists === undefined) throw usageError(grammar, `unrecognized arguments: ${typed}`);
  return dashed.startsWith("--no-") && exists !== typed && exists !== dashed ? dashed : exists;
}

function inHelp(flag: string, help: ReadonlySet<string>): boolean {
  return help.has(flag) || help.has(flag.replaceAll("-", "_").replace(/^_+/, "--"));
}

function arityOf(flag: string, grammar: Grammar): Arity | "unknown" {
  return grammar.table[flag] ?? (flag.startsWith("--no-") ? "switch" : "unknown");
}

function usageError({ program }: Grammar, message: string): UsageError {
  return new UsageError(`usage: ${program} [-h] [options]\n${program}: error: ${message}`);
}

/** Typed look-ups in a command line. The first name that was given counts. */
export class Flags {
  readonly #parsed: ParsedArguments;
  readonly #program: string;

  constructor(parsed: ParsedArguments, program: string) {
    this.#parsed = parsed;
    this.#program = program;
  }

  has(...names: string[]): boolean {
    return names.some((name) => this.#parsed.flags.has(name));
  }

  all(...names: string[]): readonly string[] {
    for (const name of names) {
      const values = this.#parsed.flags.get(name);
      if (values !== undefined) return values;
    }
    return [];
  }

  text(...names: string[]): string | null {
    return this.all(...names).at(-1) ?? null;
  }

  /** Throws `UsageError` for what is no number, as argparse does. */
  number(...names: string[]): number | null {
    const text = this.text(...names);
    if (text === null) return null;
    const value = Number(text);
    if (Number.isFinite(value)) return value;
    throw new UsageError(
      `usage: ${this.#program} [-h] [options]\n${this.#program}: error: argument ${names[0]}: invalid int value: '${text}'`,
    );
  }
}
