import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { hubRoute } from "../fakes/range-server-stores.ts";
import { RangeServer } from "../fakes/range-server.ts";
import { temporaryFolder } from "../support/folders.ts";
import { failToStart, startPenstock, type RunningStart } from "../support/penstock.ts";
import { demoModel } from "../support/repository.ts";

// `npm start -- --model ...` for each kind of source that can be had on one machine, with servers that speak the protocol.

/** Tokens that a model answers with. */
async function tokensFrom(penstock: RunningStart, model: string): Promise<number> {
  const answer = await penstock.client.chat.completions.create({
    model,
    messages: [{ role: "user", content: "Hello!" }],
    max_tokens: 3,
  });
  return answer.usage?.completion_tokens ?? 0;
}

test("http:// by ranges", async () => {
  await using server = await RangeServer.start();
  server.put("/models/web-model.gguf", await readFile(demoModel));
  await using penstock = await startPenstock({ args: ["--model", `${server.url}/models/web-model.gguf`] });
  expect(await tokensFrom(penstock, "web-model")).toBeGreaterThan(0);
  expect(server.requests.some(({ range }) => range !== null)).toBe(true);
});

test("hf:// through the hub's API, with the token", async () => {
  await using server = await RangeServer.start({ route: hubRoute });
  server.put("/org/repo/hub-model.gguf", await readFile(demoModel));
  await using penstock = await startPenstock({
    args: ["--model", "hf://org/repo/hub-model.gguf"],
    env: { HF_ENDPOINT: server.url, HF_TOKEN: "hf_test" },
  });
  expect(await tokensFrom(penstock, "hub-model")).toBeGreaterThan(0);
  expect(server.requests.some(({ headers }) => headers.authorization === "Bearer hf_test")).toBe(true);
});

test("a folder with one model", async () => {
  await using folder = await temporaryFolder();
  await mkdir(`${folder.path}/my-folder`);
  await copyFile(demoModel, `${folder.path}/my-folder/anything.gguf`);
  await using penstock = await startPenstock({ args: ["--model", `${folder.path}/my-folder`] });
  expect(await tokensFrom(penstock, "my-folder")).toBeGreaterThan(0);
});

test("a file that was written anew is served anew, whatever the cache holds", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/changing.gguf`;
  const start = { args: ["--port", "0", "--model", path], env: { PENSTOCK_HOME: `${folder.path}/home` } };
  await copyFile(demoModel, path);
  {
    await using penstock = await startPenstock(start);
    expect(await tokensFrom(penstock, "changing")).toBeGreaterThan(0);
  }
  await writeFile(path, "no longer a model");
  const { code, output } = await failToStart(start);
  expect(code).toBe(1);
  expect(output).toContain("GGUF");
});

test("a folder with several models names them", async () => {
  await using folder = await temporaryFolder();
  for (const name of ["a.gguf", "b.gguf"]) await copyFile(demoModel, `${folder.path}/${name}`);
  const { code, output } = await failToStart({ args: ["--port", "0", "--model", folder.path] });
  expect(code).toBe(2);
  for (const name of ["a.gguf", "b.gguf"]) expect(output).toContain(name);
});

test("a URL that leads nowhere", async () => {
  await using server = await RangeServer.start();
  const { code, output } = await failToStart({ args: ["--port", "0", "--model", `${server.url}/nothing.gguf`] });
  expect(code).toBe(1);
  expect(output).toContain("nothing.gguf");
  expect(output).not.toMatch(/\n\s+at /);
});
