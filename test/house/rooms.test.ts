import { execFile } from "node:child_process";
import { copyFile, mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { rooms } from "../../rooms.config.ts";
import { temporaryFolder } from "../support/folders.ts";
import { repository } from "../support/repository.ts";

const run = promisify(execFile);

test("tests run on the Node that the project carries", () => {
  expect(Number(process.versions.node.split(".")[0])).toBeGreaterThanOrEqual(24);
});

test.each(["infra", "runtime"])("every folder of %s/ is a room of the import table", async (wing) => {
  const entries = await readdir(join(repository, wing), { withFileTypes: true });
  const folders = entries.filter((entry) => entry.isDirectory()).map(({ name }) => `${wing}/${name}`);
  expect(Object.keys(rooms)).toEqual(expect.arrayContaining(folders));
});

test.each([
  ["runtime/contracts/a.ts", "../lib/b.ts", "runtime/contracts may not import runtime/lib"],
  ["runtime/gateway/http/a.ts", "../../agent/b.ts", "runtime/gateway may not import runtime/agent"],
  ["runtime/agent/a.ts", "../../infra/stack/b.ts", "runtime/agent may not import infra/stack"],
  ["infra/stack/a.ts", "../../runtime/gateway/b.ts", "infra/stack may not import runtime/gateway"],
  ["runtime/agent/a.ts", "../../test/b.ts", "Product code may not import tests"],
])("lint refuses %s importing %s", async (importer, imported, message) => {
  const { code, output } = await lint(importer, imported);
  expect(output).toContain(message);
  expect(code).toBe(1);
});

test("lint allows what the table allows", async () => {
  expect(await lint("runtime/gateway/a.ts", "../contracts/b.ts")).toMatchObject({ code: 0 });
});

/** Lints two files in a copy of the house: `importer`, and what it imports. */
async function lint(importer: string, imported: string): Promise<{ code: number; output: string }> {
  await using folder = await temporaryFolder();
  for (const name of ["oxlint.config.ts", "rooms.config.ts", "tsconfig.json", "package.json"]) {
    await copyFile(join(repository, name), join(folder.path, name));
  }
  await symlink(join(repository, "node_modules"), join(folder.path, "node_modules"));
  const importerPath = join(folder.path, importer);
  const importedPath = join(dirname(importerPath), imported);
  for (const path of [importerPath, importedPath]) await mkdir(dirname(path), { recursive: true });
  await writeFile(importedPath, "export const one = 1;\n");
  await writeFile(importerPath, `import { one } from "${imported}";\n\nexport const two = one + 1;\n`);
  // Awaited here, since the folder is gone when this function returns.
  return await run(join(repository, "node_modules/.bin/oxlint"), [], { cwd: folder.path }).then(
    ({ stdout }) => ({ code: 0, output: stdout }),
    (error: { code: number; stdout: string }) => ({ code: error.code, output: error.stdout }),
  );
}
