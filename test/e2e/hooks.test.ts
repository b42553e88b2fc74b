import { expect, test } from "vitest";
import { temporaryFolder } from "../support/folders.ts";
import { failToStart, stackFile, startPenstock } from "../support/penstock.ts";

test("a hook of the stack file sees what goes through `npm start`", async () => {
  await using folder = await temporaryFolder();
  const hook = { module: "penstock:set-defaults", options: { bounds: { max_tokens: { max: 3 } } } };
  const stack = await stackFile(folder.path, { gateway: { apiKey: "a-key-for-tests", hooks: [hook] } });
  await using penstock = await startPenstock({ args: ["--stack", stack] });
  const answer = await penstock.client.chat.completions.create({
    model: "demo",
    messages: [{ role: "user", content: "What is the capital of Norway?" }],
    max_tokens: 20,
  });
  expect(answer.usage?.completion_tokens).toBe(3);
});

test("a hook that is not there keeps `npm start` from starting, with its name", async () => {
  await using folder = await temporaryFolder();
  const stack = await stackFile(folder.path, {
    gateway: { apiKey: "a-key-for-tests", hooks: [{ module: "./nowhere.ts" }] },
  });
  const failed = await failToStart({ args: ["--stack", stack] });
  expect(failed.code).not.toBe(0);
  expect(failed.output).toContain("nowhere.ts");
});
