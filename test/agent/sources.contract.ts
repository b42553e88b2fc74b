import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { expect, it } from "vitest";
import { SourceError } from "../../runtime/agent/sources/errors.ts";
import { listWithChecksums } from "../../runtime/agent/sources/checksums.ts";
import { createSource } from "../../runtime/agent/sources/index.ts";
import type { DirectRequest, Source, SourceFile, SourceOptions } from "../../runtime/agent/sources/source.ts";
import { patternedBytes, sha256 } from "../fakes/range-server.ts";

/** One store, filled by the test, as the contract sees it. */
export interface Store extends AsyncDisposable {
  readonly options: SourceOptions;
  /** URI of a file or folder of the store; may carry credentials. */
  uri(path: string): string;
  put(path: string, body: Buffer): Promise<void>;
  /** From now on the store refuses everything. */
  deny(): Promise<void>;
}

/** Tests of the contract that a store cannot pass, each with its reason. */
export interface Gaps {
  readonly folders?: string;
  readonly sidecars?: string;
  readonly ownChecksums?: string;
  readonly replacement?: string;
  readonly direct?: string;
}

const never = new AbortController().signal;
const model = patternedBytes(300_000);

/** What every source must do, whatever its scheme. */
export function sourceContract(open: () => Promise<Store>, { gaps, remedy }: { gaps: Gaps; remedy: RegExp }): void {
  it("lists one file and reads it as a whole and in parts", async () => {
    await using store = await open();
    await store.put("models/one.gguf", model);
    const source = sourceOf(store, "models/one.gguf");
    const [file, ...rest] = await listWithChecksums(source, never);
    expect(rest).toEqual([]);
    expect(file).toMatchObject({ path: "one.gguf", sizeBytes: model.length, ranges: true });
    expect(file?.etag).toBeTruthy();
    if (file === undefined) return;
    expect(await read(source, { file, start: 0, end: model.length })).toEqual(model);
    expect(await read(source, { file, start: 0, end: 1 })).toEqual(model.subarray(0, 1));
    expect(await read(source, { file, start: 70_001, end: 200_003 })).toEqual(model.subarray(70_001, 200_003));
    expect(await read(source, { file, start: model.length - 1, end: model.length })).toEqual(model.subarray(-1));
  });

  it("lists a folder with paths relative to it, and not its neighbours", async (context) => {
    context.skip(gaps.folders !== undefined, gaps.folders);
    await using store = await open();
    const names = ["config.json", "a.safetensors", "b.safetensors", "c d#1.safetensors", "sub/deep/x.json"];
    for (const name of names) await store.put(`models/llama/${name}`, Buffer.from(name));
    await store.put("models/llama-70b/a.safetensors", Buffer.from("a neighbour"));
    const source = sourceOf(store, "models/llama");
    const files = await listWithChecksums(source, never);
    expect(files.map((file) => file.path).toSorted()).toEqual(names.toSorted());
    for (const file of files) {
      expect((await read(source, { file, start: 0, end: file.sizeBytes })).toString()).toBe(file.path);
    }
  });

  it("lists all shards when the URI names one", async () => {
    await using store = await open();
    const shards = [1, 2, 3].map((n) => `big-0000${n}-of-00003.gguf`);
    for (const shard of shards) await store.put(`models/${shard}`, Buffer.from(shard));
    const source = sourceOf(store, "models/big-00001-of-00003.gguf");
    const files = await listWithChecksums(source, never);
    expect(files.map((file) => file.path)).toEqual(shards);
    for (const file of files) {
      expect((await read(source, { file, start: 0, end: file.sizeBytes })).toString()).toBe(file.path);
    }
  });

  it("takes a checksum from a file beside the model", async (context) => {
    context.skip(gaps.sidecars !== undefined, gaps.sidecars);
    await using store = await open();
    await store.put("models/one.gguf", model);
    await store.put("models/one.gguf.sha256", Buffer.from(`${sha256(model).toUpperCase()} *wherever.gguf\n`));
    const [file, ...rest] = await listWithChecksums(sourceOf(store, "models/one.gguf"), never);
    expect(rest).toEqual([]);
    expect(file?.sha256).toBe(sha256(model));
  });

  it("takes checksums from SHA256SUMS in a folder", async (context) => {
    context.skip(gaps.folders !== undefined, gaps.folders);
    await using store = await open();
    const sums = `${sha256(Buffer.from("a"))}  a.safetensors\n${sha256(Buffer.from("b"))}  sub/b.safetensors\nnonsense\n`;
    await store.put("m/a.safetensors", Buffer.from("a"));
    await store.put("m/sub/b.safetensors", Buffer.from("b"));
    await store.put("m/SHA256SUMS", Buffer.from(sums));
    const files = await listWithChecksums(sourceOf(store, "m"), never);
    expect(Object.fromEntries(files.map((file) => [file.path, file.sha256]))).toEqual({
      "a.safetensors": sha256(Buffer.from("a")),
      "sub/b.safetensors": sha256(Buffer.from("b")),
    });
  });

  it("takes the checksum that the store itself has, of a file and in a folder", async (context) => {
    context.skip(gaps.ownChecksums !== undefined, gaps.ownChecksums);
    await using store = await open();
    const weights = patternedBytes(1 << 20);
    await store.put("m/hashed.safetensors", weights);
    await store.put("m/other.safetensors", Buffer.from("small"));
    for (const path of ["m/hashed.safetensors", "m"]) {
      const files = await listWithChecksums(sourceOf(store, path), never);
      expect(files.find((file) => file.path === "hashed.safetensors")?.sha256).toBe(sha256(weights));
    }
  });

  it("makes a plain request that gives the bytes, and notices a replaced file", async (context) => {
    context.skip(gaps.direct !== undefined, gaps.direct);
    await using store = await open();
    await store.put("models/one.gguf", model);
    const source = sourceOf(store, "models/one.gguf");
    const [file] = await source.list(never);
    const direct = file === undefined ? undefined : await source.direct?.(file, never);
    expect(direct).toBeTruthy();
    if (direct === undefined || direct === null) return;
    expect(direct.expiresAtMs ?? Infinity).toBeGreaterThan(Date.now() + 600_000);
    const { status, body } = await send(direct, { start: 70_001, end: 200_003 });
    expect({ status, same: body.equals(model.subarray(70_001, 200_003)) }).toEqual({ status: 206, same: true });
    if (gaps.replacement !== undefined) return;
    await store.put("models/one.gguf", patternedBytes(model.length, 2));
    expect([200, 412]).toContain((await send(direct, { start: 0, end: 10 })).status);
  });

  it("makes no plain request where a proxy must be used", async () => {
    await using store = await open();
    await store.put("models/one.gguf", model);
    const source = createSource(store.uri("models/one.gguf"), { ...store.options, proxied: true });
    const [file] = await source.list(never);
    expect(file === undefined ? undefined : ((await source.direct?.(file, never)) ?? null)).toBeNull();
  });

  it("says source_not_found for what is not there", async () => {
    await using store = await open();
    await store.put("models/one.gguf", model);
    const error = await failureOf(sourceOf(store, "models/absent.gguf").list(never));
    expect(error).toMatchObject({ code: "source_not_found", retry: "never" });
    expect(error.message).toContain("models/absent.gguf");
    expect(error.message).not.toContain("secret");
  });

  it("says source_denied, and which credential to set", async () => {
    await using store = await open();
    await store.put("models/one.gguf", model);
    await store.deny();
    const error = await failureOf(sourceOf(store, "models/one.gguf").list(never));
    expect(error).toMatchObject({ code: "source_denied", retry: "never" });
    expect(error.message).toMatch(remedy);
    expect(error.message).not.toContain("secret");
  });

  it("notices that a file was replaced after it was listed", async (context) => {
    context.skip(gaps.replacement !== undefined, gaps.replacement);
    await using store = await open();
    await store.put("models/one.gguf", model);
    const source = sourceOf(store, "models/one.gguf");
    const [file] = await source.list(never);
    await store.put("models/one.gguf", patternedBytes(model.length, 2));
    expect(file).toBeDefined();
    if (file === undefined) return;
    const error = await failureOf(read(source, { file, start: 1_000, end: 2_000 }));
    expect(error).toMatchObject({ code: "source_failed", retry: "start_over" });
    expect(error.message).toContain("replaced during download");
  });

  it("ends with the signal's own reason", async () => {
    await using store = await open();
    await store.put("models/one.gguf", model);
    const source = sourceOf(store, "models/one.gguf");
    const reason = new Error("the agent stops");
    await expect(source.list(AbortSignal.abort(reason))).rejects.toBe(reason);
    const [file] = await source.list(never);
    expect(file).toBeDefined();
    if (file === undefined) return;
    const controller = new AbortController();
    const chunks = source.readRange(file, { start: 0, end: model.length, signal: controller.signal });
    const reading = (async () => {
      for await (const _ of chunks) controller.abort(reason);
    })();
    await expect(reading).rejects.toBe(reason);
  });
}

/** The source of a path of a store. */
export function sourceOf(store: Store, path: string): Source {
  return createSource(store.uri(path), store.options);
}

/** Part of a file as one buffer. */
export async function read(
  source: Source,
  { file, start, end }: { file: SourceFile; start: number; end: number },
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source.readRange(file, { start, end, signal: never })) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Sends a direct request as it is, with a range. */
export async function send(
  { url, headers }: DirectRequest,
  { start, end }: { start: number; end: number },
): Promise<{ status: number | undefined; body: Buffer }> {
  const outgoing = request(url, { headers: { ...headers, range: `bytes=${start}-${end - 1}` }, agent: false }).end();
  const [incoming] = (await once(outgoing, "response")) as [IncomingMessage]; // what the event carries
  return { status: incoming.statusCode, body: Buffer.concat(await incoming.toArray()) };
}

/** The SourceError that a promise rejects with. */
export async function failureOf(promise: Promise<unknown>): Promise<SourceError> {
  const outcome: unknown = await promise.then(
    () => new Error("it did not fail"),
    (thrown: unknown) => thrown,
  );
  expect(outcome).toBeInstanceOf(SourceError);
  return outcome as SourceError; // asserted above
}
