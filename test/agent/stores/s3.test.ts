import { CreateBucketCommand, PutObjectCommand, type S3Client } from "@aws-sdk/client-s3";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { createSource } from "../../../runtime/agent/sources/index.ts";
import { s3, type S3Server } from "../../support/servers/s3.ts";
import { failureOf } from "../sources.contract.ts";
import { s3Client, stubCredentials } from "./servers.ts";

const never = new AbortController().signal;

let server: S3Server;
let client: S3Client;
beforeAll(async () => {
  server = await s3();
  client = s3Client(server);
  await client.send(new CreateBucketCommand({ Bucket: "models" }));
});
afterAll(async () => {
  client.destroy();
  await server[Symbol.asyncDispose]();
});
afterEach(() => vi.unstubAllEnvs());

function list(uri: string, { anonymous = false } = {}) {
  return createSource(uri, { s3: { endpoint: server.url, pathStyle: true, anonymous } }).list(never);
}

describe("s3rver", () => {
  it("gives a whole list where it takes more than one page", async () => {
    // Pages have 1000 objects.
    const names = [...Array(1_001).keys()].map((n) => `many/${String(n).padStart(5, "0")}.json`);
    const queue = names.values();
    const worker = async () => {
      for (const Key of queue) await client.send(new PutObjectCommand({ Bucket: "models", Key, Body: "{}" }));
    };
    await Promise.all(Array.from({ length: 16 }, worker));
    stubCredentials(server);
    const files = await list("s3://models/many");
    expect(files.map(({ path }) => `many/${path}`).toSorted()).toEqual(names);
  });

  it("has no bucket of that name", async () => {
    stubCredentials(server);
    expect(await failureOf(list("s3://absent/m.gguf"))).toMatchObject({ code: "source_not_found" });
    expect(await failureOf(list("s3://absent"))).toMatchObject({ code: "source_not_found" });
  });

  it("serves who is known and who says nothing, but not who is unknown", async () => {
    await client.send(new PutObjectCommand({ Bucket: "models", Key: "m.gguf", Body: "model" }));
    vi.stubEnv("AWS_ACCESS_KEY_ID", undefined);
    expect(await list("s3://models/m.gguf", { anonymous: true })).toMatchObject([{ path: "m.gguf", sizeBytes: 5 }]);
    stubCredentials(server);
    expect(await list("s3://models/m.gguf")).toHaveLength(1);
    stubCredentials({ ...server, accessKeyId: "UNKNOWN" });
    expect(await failureOf(list("s3://models/m.gguf"))).toMatchObject({ code: "source_denied" });
  });
});
