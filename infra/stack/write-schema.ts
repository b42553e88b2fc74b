import { readFile, writeFile } from "node:fs/promises";
import { stackFileSchema } from "./json-schema.ts";

// `npm run schema` writes stacks/stack.schema.json; with --check it fails when the file is not what it would write.
const path = new URL("../../stacks/stack.schema.json", import.meta.url);
const text = `${JSON.stringify(stackFileSchema(), null, 2)}\n`;

if (process.argv.includes("--check")) {
  const current = await readFile(path, "utf8").catch(() => "");
  if (current !== text) {
    process.stderr.write("stacks/stack.schema.json is not what the schema says; run `npm run schema` and commit it.\n");
    process.exitCode = 1;
  }
} else {
  await writeFile(path, text);
}
