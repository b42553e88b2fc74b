import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { smallDisk, temporaryFolder } from "../support/folders.ts";
import { failToStart, stackFile, startPenstock } from "../support/penstock.ts";
import { demoModel } from "../support/repository.ts";

/** One clear message: what is wrong and what to do, and never a stack trace. */
function expectClear(output: string, ...parts: readonly string[]): void {
  for (const part of parts) expect(output).toContain(part);
  expect(output).not.toMatch(/\n\s+at /);
}

test("a model file that is not there", async () => {
  const { code, output } = await failToStart({ args: ["--model", "./nowhere.gguf"] });
  expect(code).toBe(2);
  expectClear(output, "there is no file or folder", "nowhere.gguf");
});

test("options that do not exist or do not fit", async () => {
  expect((await failToStart({ args: ["--prot", "1"] })).code).toBe(2);
  const { code, output } = await failToStart({ args: ["--port", "99999", "--log-level", "loud"] });
  expect(code).toBe(2);
  expectClear(output, "--port: 99999 is not a port", "--log-level: use one of");
});

test("a stack file with several problems names all of them", async () => {
  await using folder = await temporaryFolder();
  const path = await stackFile(folder.path, {
    gateway: { apiKey: "a-key-for-tests", prot: 1 },
    models: [{ id: "../etc/passwd", source: "ftp://x" }],
  });
  const { code, output } = await failToStart({ args: ["--stack", path] });
  expect(code).toBe(2);
  expectClear(
    output,
    "gateway.prot: unknown key; there are host, port",
    "models[0].id:",
    "models[0].source: must start",
  );
});

test("a port in use", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // a TCP server has one
  const { code, output } = await failToStart({ args: ["--port", String(port)] });
  await new Promise((resolve) => server.close(resolve));
  expect(code).toBe(1);
  expectClear(output, `Port ${port} on 127.0.0.1 is in use`, "--port");
});

test("the key that everybody can read does not guard a public address", async () => {
  const { code, output } = await failToStart({ args: ["--port", "0", "--host", "0.0.0.0"] });
  expect(code).toBe(2);
  expectClear(output, "PENSTOCK_API_KEY");
});

test("a GGUF file that is cut short", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/short.gguf`;
  const whole = await readFile(demoModel);
  await writeFile(path, whole.subarray(0, whole.length - 10_000));
  const { code, output } = await failToStart({ args: ["--port", "0", "--model", path] });
  expect(code).toBe(1);
  expectClear(output, "short.gguf");
  expect(output).toMatch(/cut short|shorter|truncated|missing/i);
});

test("a file that is no model", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/letter.gguf`;
  await writeFile(path, "Dear model, ".repeat(1_000));
  const { code, output } = await failToStart({ args: ["--port", "0", "--model", path] });
  expect(code).toBe(1);
  expectClear(output, "GGUF");
});

test("a flipped byte is found by the checksum, over HTTP as at the start", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/flipped.gguf`;
  const bytes = await readFile(demoModel);
  bytes[bytes.length - 5_000] = (bytes[bytes.length - 5_000] ?? 0) ^ 0xff;
  await writeFile(path, bytes);
  const checksum = (await readFile(`${demoModel}.sha256`, "utf8")).split(" ")[0];
  await writeFile(`${path}.sha256`, `${checksum}  flipped.gguf\n`);
  const atStart = await failToStart({ args: ["--port", "0", "--model", path] });
  expect(atStart.code).toBe(1);
  expectClear(atStart.output, "does not have the expected sha256", "upload the file again");

  const stack = await stackFile(folder.path, { models: [{ id: "demo", source: `file://${path}` }] });
  await using penstock = await startPenstock({ args: ["--stack", stack] });
  await expect(
    penstock.client.chat.completions.create({ model: "demo", messages: [{ role: "user", content: "hi" }] }),
  ).rejects.toMatchObject({ status: 503, code: "checksum_mismatch" });
  await copyFile(demoModel, path);
  const answer = await penstock.client.chat.completions.create({
    model: "demo",
    messages: [{ role: "user", content: "hi" }],
    max_tokens: 3,
  });
  expect(answer.choices, "the next request fetches the mended file").toHaveLength(1);
});

test("a full disk", async (context) => {
  await using disk = await smallDisk(context, "size=1m");
  const { code, output } = await failToStart({ args: ["--port", "0"], env: { PENSTOCK_HOME: disk.path } });
  expect(code).toBe(1);
  expectClear(output, "needs", "bytes", "has");
});

test("--help and --version", async () => {
  const help = await failToStart({ args: ["--help"] });
  expect(help.code).toBe(0);
  for (const option of ["--model", "--port", "--host", "--log-level", "hf://"]) expect(help.output).toContain(option);
  const version = await failToStart({ args: ["--version"] });
  expect(version.output).toMatch(/^\d+\.\d+\.\d+\n$/);
});
