import { unusable } from "./errors.ts";
import type { SourceFile } from "./source.ts";

const maxFiles = 10_000;
const maxNameBytes = 255;
const maxPathBytes = 1_024;

/**
 * Refuses a listing whose names would write anywhere but inside the folder that is being filled:
 * absolute paths, `..`, NUL and other control characters, backslashes, drive letters, doubles, a file that is also a folder.
 * Throws `source_failed`.
 */
export function checkNames(files: readonly SourceFile[], uri: string): void {
  if (files.length > maxFiles) throw unusable(uri, `It has more than ${maxFiles} files; name a smaller folder.`);
  // File systems of laptops take `A` and `a` for one file.
  const taken = new Set<string>();
  for (const { path, sizeBytes } of files) {
    const reason = problemOf(path) ?? (Number.isSafeInteger(sizeBytes) && sizeBytes >= 0 ? undefined : "its size");
    if (reason !== undefined) {
      throw unusable(uri, `The file ${JSON.stringify(path.slice(0, 100))} is refused because of ${reason}; rename it.`);
    }
    const name = path.toLowerCase();
    if (taken.has(name)) throw unusable(uri, `It lists ${JSON.stringify(path)} twice.`);
    taken.add(name);
  }
  for (const { path } of files) {
    for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) {
      if (taken.has(path.slice(0, at).toLowerCase())) {
        throw unusable(uri, `It lists ${JSON.stringify(path.slice(0, at))} as a file and as a folder.`);
      }
    }
  }
}

function problemOf(path: string): string | undefined {
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/[\u0000-\u001F\u007F\\]/.test(path)) return "a control character or a backslash";
  if (path.startsWith("/") || /^[a-z]:/i.test(path)) return "an absolute path";
  if (Buffer.byteLength(path) > maxPathBytes) return "its length";
  for (const name of path.split("/")) {
    if (name === "" || name === "." || name === "..") return "a path that leaves its folder";
    if (Buffer.byteLength(name) > maxNameBytes) return "its length";
  }
  return undefined;
}
