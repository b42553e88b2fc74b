import { PenstockError, toPenstockError } from "../../runtime/contracts/errors.ts";

/** Runs a command's `main`: errors of the table go to stderr as a sentence with its remedy; 2 for a wrong call or stack. */
export async function runCommand(name: string, main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (thrown) {
    const error = toPenstockError(thrown);
    const isBug = error.code === "internal_error";
    const detail = isBug && error.cause instanceof Error ? `\n${error.cause.stack ?? ""}` : "";
    process.stderr.write(`${name}: ${error.message}${detail}\n`);
    process.exitCode = error.code === "invalid_config" ? 2 : 1;
  }
}

/** What `parse` reads of the command line; what it cannot read is an `invalid_config` that points to --help. */
export function parsed<Parsed>(parse: () => Parsed): Parsed {
  try {
    return parse();
  } catch (cause) {
    throw new PenstockError("invalid_config", `${cause instanceof Error ? cause.message : String(cause)}; see --help`);
  }
}
