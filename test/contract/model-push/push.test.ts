import { createHash } from "node:crypto";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { BlobServiceClient } from "@azure/storage-blob";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { pushModel } from "../../../infra/commands/model/push.ts";
import { openModelStore, type ModelStore } from "../../../infra/commands/model/store.ts";
import { listWithChecksums } from "../../../runtime/agent/sources/checksums.ts";
import { createSource } from "../../../runtime/agent/sources/index.ts";
import type { SourceFile } from "../../../runtime/agent/sources/source.ts";
import { patternedBytes } from "../../fakes/range-server.ts";
import { temporaryFolder, type TemporaryFolder } from "../../support/folders.ts";
import { azurite } from "../../support/servers/azurite.ts";
import { s3 } from "../../support/servers/s3.ts";

const never = new AbortController().signal;
/** S3's smallest. */
const partBytes = 5 * 2 ** 20;

interface Cloud extends AsyncDisposable {
  readonly uri: string;
  readonly connection: string | undefined;
}

const clouds: Readonly<Record<string, () => Promise<Cloud>>> = {
  async azure() {
    const server = await azurite();
    const connection = server.connectionString();
    await BlobServiceClient.fromConnectionString(connection).getContainerClient("models").create();
    return {
      uri: `az://${server.account}/models`,
      connection,
      [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
    };
  },
  async s3() {
    const server = await s3("penstock-models");
    vi.stubEnv("AWS_ACCESS_KEY_ID", server.accessKeyId);
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", server.secretAccessKey);
    vi.stubEnv("AWS_REGION", "us-east-1");
    vi.stubEnv("AWS_ENDPOINT_URL", server.url);
    return {
      uri: "s3://penstock-models",
      connection: undefined,
      [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
    };
  },
};

describe.for(Object.keys(clouds))("a push to %s", (name) => {
  let cloud: Cloud;
  let store: ModelStore;
  let folder: TemporaryFolder;

  beforeAll(async () => {
    const start = clouds[name];
    if (start === undefined) throw new Error(`no cloud ${name}`);
    cloud = await start();
    store = openModelStore(cloud.uri, { azureConnection: cloud.connection });
  });
  afterAll(async () => {
    await cloud[Symbol.asyncDispose]();
    vi.unstubAllEnvs();
  });
  beforeEach(async () => {
    folder = await temporaryFolder();
  });
  afterEach(() => folder[Symbol.asyncDispose]());

  const options = () => ({ azure: { connectionString: cloud.connection } });
  const published = (at: string) => createSource(`${cloud.uri}/${at}`, options());
  const pathsIn = async (at: string) => (await store.list(`${at}/`)).map(({ path }) => path.slice(at.length + 1));

  async function write(files: Readonly<Record<string, Uint8Array>>) {
    for (const [path, bytes] of Object.entries(files)) {
      await mkdir(dirname(join(folder.path, path)), { recursive: true });
      await writeFile(join(folder.path, path), bytes);
    }
  }

  const push = (at: string, there: readonly SourceFile[] = []) =>
    pushModel({
      source: createSource(pathToFileURL(folder.path).href),
      store,
      folder: at,
      there: new Map(there.map((file) => [file.path, file])),
      signal: never,
      onProgress: () => undefined,
      partBytes,
    });

  it("copies files of many parts, which agents then read with their checksums", async () => {
    const weights = patternedBytes(2 * partBytes + 12_345);
    await write({ "config.json": Buffer.from("{}"), "weights/part-1.safetensors": weights, empty: Buffer.alloc(0) });
    expect(await push("models/one")).toEqual({ files: 3, sizeBytes: weights.length + 2, kept: 0 });
    const files = await listWithChecksums(published("models/one"), never);
    const large = files.find(({ path }) => path === "weights/part-1.safetensors");
    expect(large).toMatchObject({
      sizeBytes: weights.length,
      sha256: createHash("sha256").update(weights).digest("hex"),
    });
    const read = published("models/one");
    const listed = (await read.list(never)).find(({ path }) => path.endsWith("part-1.safetensors"));
    if (listed === undefined) throw new Error("it is not there");
    const hash = createHash("sha256");
    for await (const chunk of read.readRange(listed, { start: 0, end: weights.length, signal: never }))
      hash.update(chunk);
    expect(hash.digest("hex")).toBe(large?.sha256);
  });

  it("keeps what is there with the same sum, and removes what the source has no more", async () => {
    const sums = (files: Readonly<Record<string, Buffer>>) =>
      Object.entries(files)
        .map(([path, bytes]) => `${createHash("sha256").update(bytes).digest("hex")}  ${path}\n`)
        .join("");
    const first = { "a.safetensors": Buffer.from("a"), "b.safetensors": Buffer.from("b") };
    await write({ ...first, SHA256SUMS: Buffer.from(sums(first)) });
    await push("models/two");
    const there = await listWithChecksums(published("models/two"), never);
    expect(await push("models/two", there)).toMatchObject({ files: 2, kept: 2 });
    const second = { "a.safetensors": Buffer.from("a"), "c.safetensors": Buffer.from("c") };
    await rm(join(folder.path, "b.safetensors"));
    await write({ ...second, SHA256SUMS: Buffer.from(sums(second)) });
    expect(await push("models/two", there)).toMatchObject({ files: 2, kept: 1 });
    expect((await pathsIn("models/two")).toSorted()).toEqual(["SHA256SUMS", "a.safetensors", "c.safetensors"]);
  });

  it("publishes nothing whose bytes are not what the source says", async () => {
    const wrong = "0".repeat(64);
    await write({
      "a.safetensors": patternedBytes(partBytes + 1),
      SHA256SUMS: Buffer.from(`${wrong}  a.safetensors\n`),
    });
    await expect(push("models/three")).rejects.toMatchObject({
      code: "checksum_mismatch",
      message: expect.stringContaining("should to 0000"),
    });
    expect(await pathsIn("models/three")).toEqual([]);
  });

  it("says what to do about a store that is not there", async () => {
    const elsewhere = openModelStore(name === "azure" ? "az://penstock/nowhere" : "s3://nowhere", {
      azureConnection: cloud.connection,
    });
    const error: unknown = await elsewhere.list("").catch((thrown: unknown) => thrown);
    expect(elsewhere.explain(error)).toContain("npm run up");
  });
});
