import { readFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { dirname, join, normalize } from "node:path";
import { repository } from "./repository.ts";

/** What a program reads when it runs: paths of our files from the repository's root, and packages. */
export interface Closure {
  readonly files: ReadonlySet<string>;
  readonly packages: ReadonlySet<string>;
}

const statement = /^\s*(?:import|export)\s+(?:[\w\s*{},$]+\sfrom\s+)?["']([^"'\n]+)["']/gm;
const dynamic = /\bimport(?:\.meta\.resolve)?\(\s*["']([^"'\n]+)["']/g;
const beside = /new URL\(\s*["']([^"'\n]+)["'],\s*import\.meta\.url/g;

/**
 * Follows imports, also lazy ones, and files that are named beside a module. Types are gone before Node looks. `apart`:
 * programs that are named there and that this one does not start.
 */
export async function closureOf(entries: readonly string[], apart: readonly string[] = []): Promise<Closure> {
  const files = new Set<string>();
  const packages = new Set<string>();
  const left = [...entries];
  for (let file = left.pop(); file !== undefined; file = left.pop()) {
    if (files.has(file) || apart.includes(file)) continue;
    files.add(file);
    if (!/\.[cm]?[jt]s$/.test(file)) continue;
    const code = stripTypeScriptTypes(await readFile(join(repository, file), "utf8"));
    const neighbours = [...code.matchAll(beside)].map(([, name = ""]) => name);
    const wanted = [statement, dynamic].flatMap((each) => [...code.matchAll(each)].map(([, name = ""]) => name));
    for (const name of [...neighbours, ...wanted.filter((each) => each.startsWith("."))]) {
      left.push(normalize(join(dirname(file), name)));
    }
    for (const name of wanted.filter((each) => !/^(\.|node:)/.test(each))) packages.add(packageOf(name));
  }
  return { files, packages };
}

function packageOf(wanted: string): string {
  const [first = "", second = ""] = wanted.split("/");
  return first.startsWith("@") ? `${first}/${second}` : first;
}
