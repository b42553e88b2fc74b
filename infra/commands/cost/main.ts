import { writeFile } from "node:fs/promises";
import { runCommand } from "../cli.ts";
import { cost } from "./command.ts";
import { help, readOptions } from "./options.ts";

/** Exit status when `--fail-above` says no; 1 and 2 are errors. */
const aboveStatus = 3;

await runCommand("cost", async () => {
  const options = readOptions(process.argv.slice(2), new Date().toISOString().slice(0, 10));
  if (options === null) {
    process.stdout.write(help);
    return;
  }
  const { text, failure } = await cost(options);
  if (options.out === null) process.stdout.write(text);
  else await writeFile(options.out, text);
  if (failure === null) return;
  process.stderr.write(`cost: ${failure}\n`);
  process.exitCode = aboveStatus;
});
