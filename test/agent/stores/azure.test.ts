import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import type { ContainerClient } from "@azure/storage-blob";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ModelCache } from "../../../runtime/agent/cache/cache.ts";
import { createSource, type AzureOptions } from "../../../runtime/agent/sources/index.ts";
import { patternedBytes } from "../../fakes/range-server.ts";
import { temporaryFolder } from "../../support/folders.ts";
import { gguf } from "../../support/gguf-bytes.ts";
import { azurite, type Azurite } from "../../support/servers/azurite.ts";
import { failureOf } from "../sources.contract.ts";
import { newContainer, sasOf } from "./servers.ts";

const never = new AbortController().signal;
const model = gguf({ data: patternedBytes(600_000) });

let server: Azurite;
beforeAll(async () => {
  server = await azurite();
});
afterAll(() => server[Symbol.asyncDispose]());

const uriOf = (container: ContainerClient, path = "m.gguf") => `az://penstock/${container.containerName}/${path}`;

async function containerWithModel(): Promise<ContainerClient> {
  const container = await newContainer(server);
  await container.getBlockBlobClient("m.gguf").upload(model, model.length);
  return container;
}

function list(uri: string, azure: AzureOptions) {
  return createSource(uri, { azure: { endpoint: server.endpoint(), ...azure } }).list(never);
}

describe("a SAS on Azurite", () => {
  it("may stand in the URI", async () => {
    const container = await containerWithModel();
    const sas = sasOf(server, { container: container.containerName });
    const [file] = await list(`${uriOf(container)}?${sas}`, {});
    expect(file).toMatchObject({ path: "m.gguf", sizeBytes: model.length });
  });

  it("that may not list reads one blob, but no folder", async () => {
    const container = await containerWithModel();
    const sasToken = sasOf(server, { container: container.containerName, permissions: "r" });
    const [file] = await list(uriOf(container), { sasToken });
    expect(file?.sizeBytes).toBe(model.length);
    const folder = await failureOf(list(`az://penstock/${container.containerName}`, { sasToken }));
    expect(folder).toMatchObject({ code: "source_denied" });
  });

  it.each([
    ["has expired", (container: string) => sasOf(server, { container, expiresOn: new Date(Date.now() - 60_000) })],
    ["is for another container", () => sasOf(server, { container: "another" })],
    ["is of another key", (container: string) => sasOf({ account: "penstock", accountKey: "d3Jvbmc=" }, { container })],
    ["is none", () => "sig=nonsense"],
  ])("that %s is source_denied, and does not show", async (_, make) => {
    const container = await containerWithModel();
    const sasToken = make(container.containerName);
    const error = await failureOf(list(uriOf(container), { sasToken }));
    expect(error).toMatchObject({ code: "source_denied", retry: "never" });
    expect(error.message).not.toContain(new URLSearchParams(sasToken).get("sig"));
  });
});

describe("Azurite without a credential", () => {
  it("serves a public container only", async () => {
    const container = await containerWithModel();
    expect(await failureOf(list(uriOf(container), { anonymous: true }))).toMatchObject({ code: "source_denied" });
    await container.setAccessPolicy("container");
    expect(await list(uriOf(container), { anonymous: true })).toHaveLength(1);
  });

  it("has no container of that name", async () => {
    const uri = "az://penstock/absent/m.gguf";
    const connectionString = server.connectionString();
    expect(await failureOf(list(uri, { connectionString }))).toMatchObject({ code: "source_not_found" });
    expect(await failureOf(list("az://penstock/absent", { connectionString }))).toMatchObject({
      code: "source_not_found",
    });
  });
});

describe("the MD5 of a blob on Azurite", () => {
  /** Uploads in blocks, as tools do with what is large: then the store has only the MD5 that it is told. */
  async function inBlocks(md5: Buffer | undefined): Promise<ContainerClient> {
    const container = await newContainer(server);
    const blob = container.getBlockBlobClient("m.gguf");
    const ids = [0, 1].map((n) => Buffer.from(`block-${n}`).toString("base64"));
    const half = model.length >> 1;
    for (const [n, id] of ids.entries()) {
      const part = n === 0 ? model.subarray(0, half) : model.subarray(half);
      await blob.stageBlock(id, part, part.length);
    }
    await blob.commitBlockList(ids, md5 === undefined ? {} : { blobHTTPHeaders: { blobContentMD5: md5 } });
    expect((await blob.getProperties()).contentMD5?.length).toBe(md5?.length);
    return container;
  }

  async function ensure(container: ContainerClient, folder: string): Promise<Buffer> {
    await using cache = await ModelCache.open(folder, { azure: { connectionString: server.connectionString() } });
    using fetched = await cache.ensure({ source: uriOf(container), format: "gguf", sha256: undefined });
    return await readFile(fetched.entryPath);
  }

  it.each([
    ["that it has", createHash("md5").update(model).digest()],
    ["that it has not", undefined],
  ])("%s lets the model through", async (_, md5) => {
    await using folder = await temporaryFolder();
    expect((await ensure(await inBlocks(md5), folder.path)).equals(model)).toBe(true);
  });

  it("that does not fit is checksum_mismatch, and leaves nothing behind", async () => {
    await using folder = await temporaryFolder();
    const container = await inBlocks(Buffer.alloc(16, 7));
    await expect(ensure(container, folder.path)).rejects.toMatchObject({ code: "checksum_mismatch" });
    expect((await readdir(folder.path)).filter((name) => !name.startsWith("."))).toEqual([]);
  });
});

describe("a list on Azurite", () => {
  it("is whole where it takes more than one page", async () => {
    const container = await newContainer(server);
    // Pages have 5000 blobs.
    const names = [...Array(5_001).keys()].map((n) => `many/${String(n).padStart(5, "0")}.json`);
    const queue = names.values();
    const worker = async () => {
      for (const name of queue) await container.getBlockBlobClient(name).upload("{}", 2);
    };
    await Promise.all(Array.from({ length: 32 }, worker));
    const files = await list(uriOf(container, "many"), { connectionString: server.connectionString() });
    expect(files.map(({ path }) => `many/${path}`).toSorted()).toEqual(names);
  });
});
