import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "vitest";

/** A folder that is gone when the test ends. */
export interface TemporaryFolder extends AsyncDisposable {
  readonly path: string;
}

export async function temporaryFolder(): Promise<TemporaryFolder> {
  const path = await mkdtemp(join(tmpdir(), "penstock-test-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/**
 * A disk that is really small: a tmpfs with `options` such as `size=1m`. Mounting needs root, so elsewhere the test is
 * skipped and says why; in CI that is a failure.
 */
export async function smallDisk(context: TestContext, options: string): Promise<TemporaryFolder> {
  const folder = await temporaryFolder();
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", folder.path], { stdio: "pipe" });
  } catch (error) {
    await folder[Symbol.asyncDispose]();
    if (process.env["CI"] === "true") throw error;
    context.skip("mounting a tmpfs needs root and CAP_SYS_ADMIN");
  }
  return {
    path: folder.path,
    async [Symbol.asyncDispose]() {
      execFileSync("umount", [folder.path]);
      await folder[Symbol.asyncDispose]();
    },
  };
}
