import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { afterAll, beforeAll, expect, test } from "vitest";
import { patternedBytes } from "../../fakes/range-server.ts";
import { temporaryFolder, type TemporaryFolder } from "../../support/folders.ts";
import { planOf, stackOf } from "../../support/plans.ts";
import { repository } from "../../support/repository.ts";
import { s3, type S3Server } from "../../support/servers/s3.ts";

let server: S3Server;
let folder: TemporaryFolder;
let bucket: string;
let model: string;

beforeAll(async () => {
  const { cache, models } = await planOf("aws-dev");
  bucket = cache.uri.slice("s3://".length);
  model = models[0]?.id ?? "";
  server = await s3(bucket);
  folder = await temporaryFolder();
  await writeFile(join(folder.path, "config.json"), "{}");
  await writeFile(join(folder.path, "model.safetensors"), patternedBytes(3_000_000));
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

const s3Env = () => ({
  AWS_ACCESS_KEY_ID: server.accessKeyId,
  AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
  AWS_REGION: "us-east-1",
  AWS_ENDPOINT_URL: server.url,
});

/** `npm run model -- …` against the S3 server in place of AWS. */
async function run(...args: readonly string[]) {
  const [command, options] = [
    ["infra/commands/model/main.ts", ...args],
    { cwd: repository, env: { ...process.env, ...s3Env() } },
  ];
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, command, options);
    return { code: 0, stdout, stderr };
  } catch (error) {
    // What execFile throws for an exit code other than 0.
    return error as { code: number; stdout: string; stderr: string };
  }
}

test("push, list, verify and rm of a stack's model", async () => {
  const stack = ["--stack", "aws-dev"];
  const pushed = await run("push", model, ...stack, "--from", folder.path);
  expect(pushed).toMatchObject({ code: 0, stdout: `${model}: 2 files, 3.0 MB, in s3://${bucket}/models/${model}\n` });
  expect(pushed.stderr).toContain("100 % of 3.0 MB");

  const listed: unknown = JSON.parse((await run("list", ...stack, "--json")).stdout);
  const { models } = await stackOf("aws-dev");
  expect(listed).toHaveLength(models.length + models.flatMap(({ adapters }) => adapters).length);
  expect(listed).toContainEqual(
    expect.objectContaining({ name: model, folder: `models/${model}`, files: 2, isWhole: true }),
  );

  expect(await run("verify", model, ...stack)).toMatchObject({
    code: 0,
    stdout: `${model}: 2 files, 3.0 MB: as they were pushed\n`,
  });
  await damage(`models/${model}/model.safetensors`);
  expect(await run("verify", model, ...stack)).toMatchObject({
    code: 1,
    stdout: `${model}: NOT DONE: model.safetensors is damaged; push it again\n`,
  });

  expect((await run("rm", model, ...stack)).stdout).toBe(`${model}: 3 files removed\n`);
  expect(await run("verify", model, ...stack)).toMatchObject({ code: 1, stdout: expect.stringContaining("push it") });
});

test("the shape of a model in a folder, as it is pasted into a stack", async () => {
  await using hub = await temporaryFolder();
  const config = {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    hidden_size: 4_096,
    intermediate_size: 14_336,
    vocab_size: 128_256,
    max_position_embeddings: 131_072,
    torch_dtype: "bfloat16",
  };
  await writeFile(join(hub.path, "config.json"), JSON.stringify(config));
  const shown = await run("shape", hub.path);
  expect(shown).toMatchObject({ code: 0, stdout: expect.stringMatching(/^shape:\n {2}parametersB: 8\.03\n/) });
  expect(await run("shape", folder.path)).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("num_hidden_layers"),
  });
});

test("what is wrong with a call is said, with what is right", async () => {
  expect(await run("push", "nope", "--stack", "aws-dev")).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(new RegExp(`named nope; there are .*${model}`)),
  });
  expect(await run("list", "--stack", "nope")).toMatchObject({ code: 2, stderr: expect.stringContaining("aws-dev") });
  expect(await run("list", "--stack", "local")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("one machine"),
  });
  expect(await run("fetch", "--stack", "aws-dev")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("verify"),
  });
});

async function damage(path: string): Promise<void> {
  const credentials = { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey };
  const client = new S3Client({ endpoint: server.url, region: "us-east-1", forcePathStyle: true, credentials });
  const Body = Buffer.from(patternedBytes(3_000_000));
  Body[1_000] = 255 - (Body[1_000] ?? 0);
  await client.send(new PutObjectCommand({ Bucket: bucket, Key: path, Body }));
  client.destroy();
}
