import type { TestProject } from "vitest/node";
import { llamaServer, lackingLlamaServer } from "./servers/llama-server.ts";
import { installPackages } from "./servers/packages.ts";

/** Runs before the tests of a project that has any to run: gets what that project's tests need from outside. */
export async function setup({ name }: TestProject): Promise<(() => Promise<void>) | undefined> {
  switch (name) {
    case "stores":
      // The tests that need them try once more, and show what goes wrong.
      await installPackages().catch(() => undefined);
      return undefined;
    case "contract":
      return startBuild();
    default:
      throw new Error(`the project ${name} has no set-up`);
  }
}

/** Builds beside the tests of the other projects; those of this one come last, and wait. */
function startBuild(): (() => Promise<void>) | undefined {
  if (lackingLlamaServer() !== undefined) return undefined;
  const stop = new AbortController();
  // Here too a failure shows where it is needed.
  const building = llamaServer(stop.signal).catch(() => undefined);
  return async () => {
    stop.abort();
    await building;
  };
}
