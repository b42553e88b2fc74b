import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ModelCache } from "../../runtime/agent/cache/cache.ts";
import { keyOf } from "../../runtime/agent/cache/key.ts";

/**
 * Fills a cache's folder with `count` models in a moment: one is fetched as always, the others are copies of what that
 * left on disk, under names of their own.
 */
export async function fillCache(directory: string, count: number): Promise<void> {
  const origin = join(directory, "..", "origin");
  await mkdir(origin, { recursive: true });
  await writeFile(join(origin, "config.json"), "{}");
  const specOf = (at: number) =>
    ({ id: `org/model-${at}`, source: `file://${origin}/${at}`, format: "engine" }) as const;
  await using cache = await ModelCache.open(directory);
  {
    using _model = await cache.ensure({ ...specOf(0), source: `file://${origin}` });
  }
  const first = (await readdir(directory)).find((name) => !name.startsWith("."));
  if (first === undefined) throw new Error("the cache has no entry");
  const template = join(directory, "..", "template");
  await rename(join(directory, first), template);
  const manifest = JSON.parse(await readFile(join(template, "manifest.json"), "utf8"));
  for (let at = 0; at < count; at += 1) {
    const { id, source, format } = specOf(at);
    const entry = join(directory, keyOf({ source, format }));
    await cp(template, entry, { recursive: true, preserveTimestamps: true });
    await writeFile(join(entry, "manifest.json"), JSON.stringify({ ...manifest, source, modelIds: [id] }));
  }
  await rm(template, { recursive: true });
}
