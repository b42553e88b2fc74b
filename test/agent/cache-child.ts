/** Another agent on the same directory, for `cache-shared.test.ts`: does what its parent tells it and answers how it went. */
import { z } from "zod";
import { ModelCache, type CachedModel } from "../../runtime/agent/cache/cache.ts";
import { SharedDirectory } from "../../runtime/agent/cache/shared.ts";

const spec = z.object({ id: z.string(), source: z.string(), format: z.enum(["gguf", "safetensors", "engine"]) });
const command = z.discriminatedUnion("do", [
  z.object({ do: z.literal("ensure"), spec }),
  z.object({ do: z.literal("touch"), spec }),
  z.object({ do: z.literal("release") }),
  z.object({ do: z.literal("pin"), spec }),
  z.object({ do: z.literal("lockForever") }),
  z.object({ do: z.literal("report") }),
]);

const [directory = "", optionsJson = "{}"] = process.argv.slice(2);
const limits = { rangeBytes: 4096, connections: 2, noteEveryMs: 0 };
// The test that starts this wrote them.
const options = { reserveFreeBytes: 0, limits, ...(JSON.parse(optionsJson) as { budgetBytes?: number }) };
const rssBefore = process.memoryUsage.rss();
const cache = await ModelCache.open(directory, {}, options);
const openedMiB = (process.memoryUsage.rss() - rssBefore) / 2 ** 20;
const held: CachedModel[] = [];

async function run(message: unknown): Promise<unknown> {
  const told = command.parse(message);
  switch (told.do) {
    case "ensure":
      held.push(await cache.ensure(told.spec));
      return held.at(-1)?.fromCache;
    case "touch": {
      using model = await cache.ensure(told.spec);
      return model.fromCache;
    }
    case "release":
      for (const model of held.splice(0)) model.release();
      return true;
    case "pin":
      await cache.pin(told.spec);
      return true;
    case "lockForever":
      await lockForever();
      return true;
    case "report":
      return { entries: cache.list().length, openedMiB };
  }
  return undefined;
}

/** Resolves once the directory is locked, for as long as this process lives. */
async function lockForever(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  void new SharedDirectory(directory).locked(async () => {
    resolve();
    await new Promise(() => undefined);
  });
  await promise;
}

process.on("message", (message) => {
  run(message).then(
    (answer) => process.send?.({ answer }),
    (thrown: unknown) => process.send?.({ code: String(Object(thrown).code), message: String(thrown) }),
  );
});
process.send?.({ answer: "open" });
