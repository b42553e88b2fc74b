import { execFile } from "node:child_process";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { temporaryFolder } from "../support/folders.ts";
import { repository } from "../support/repository.ts";

async function run(args: readonly string[], path: string) {
  const command = ["infra/commands/pulumi/main.ts", ...args];
  try {
    const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: repository, env: { PATH: path } });
    return { code: 0, stdout, stderr: "" };
  } catch (error) {
    // What execFile throws for an exit code other than 0.
    return error as { code: number; stdout: string; stderr: string };
  }
}

test("Pulumi gets the stack, a refresh, the policies and the caller's options; its exit code is ours", async () => {
  await using folder = await temporaryFolder();
  const pulumi = join(folder.path, "pulumi");
  await writeFile(pulumi, '#!/bin/sh\necho "$@"\nexit 7\n');
  await chmod(pulumi, 0o755);
  const path = `${folder.path}:/usr/bin:/bin`;
  const ran = await run(["up", "azure-dev", "--yes"], path);
  expect(ran.stdout).toBe("up --policy-pack policies --stack azure-dev --refresh --yes\n");
  expect(ran.code).toBe(7);
  expect((await run(["down", "azure-dev"], path)).stdout).toBe("destroy --stack azure-dev --refresh\n");
});

test("without Pulumi, or with a stack that is not there, the remedy is said", async () => {
  const without = await run(["preview", "azure-dev"], "/nowhere");
  expect([without.code, without.stderr]).toEqual([2, expect.stringContaining("pulumi.com/docs/install")]);
  const nope = await run(["preview", "nope"], "/nowhere");
  expect([nope.code, nope.stderr]).toEqual([2, expect.stringContaining("azure-prod")]);
});
