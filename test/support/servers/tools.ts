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

/**
 * Why tests that need the Pulumi CLI cannot run here; undefined when they can. The one program that may be missing in CI as
 * well: neither Debian nor npm has it (npm's `pulumi` fetches it when it is first called), and its maker's downloads are not
 * for every CI to reach. What can be tested without it is in test/infra/{program,pulumi-provider}.test.ts.
 */
export function lackingPulumi(): string | undefined {
  if (isInstalled("pulumi")) return undefined;
  const reason = "the Pulumi CLI is not in PATH (pulumi.com/docs/install)";
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
