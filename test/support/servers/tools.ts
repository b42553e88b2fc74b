import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/**
 * Why tests that need these programs cannot run here; undefined when they can. For
 * `describe.skipIf(reason !== undefined)`: the reason goes to stderr. In CI a missing program is an error.
 */
export function lacking(...programs: readonly string[]): string | undefined {
  const missing = programs.filter((program) => !isInstalled(program));
  if (missing.length === 0) return undefined;
  return skipped(`${missing.join(" and ")} not found in PATH`, ".ci/run installs what the tests need");
}

/** Tells people why tests are skipped here, and returns it. In CI throws it, with what helps. */
export function skipped(reason: string, remedy: string): string {
  if (process.env["CI"] === "true") throw new Error(`${reason}: ${remedy}`);
  process.stderr.write(`Some tests are skipped: ${reason}.\n`);
  return reason;
}

function isInstalled(program: string): boolean {
  return (process.env["PATH"] ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
