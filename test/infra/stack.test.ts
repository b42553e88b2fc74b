import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { checkStack, loadStack } from "../../infra/stack/load.ts";
import { stackFileSchema } from "../../infra/stack/json-schema.ts";
import { PenstockError } from "../../runtime/contracts/errors.ts";

const good = {
  version: 1,
  cloud: "local",
  gateway: { apiKey: "a-key-for-tests" },
  models: [{ id: "a", source: "file:///a.gguf" }],
  fleets: [{ name: "local", engine: { kind: "embedded" }, models: ["a"] }],
};

function problemsOf(stack: unknown): string {
  try {
    checkStack(stack, "/stacks/Pulumi.test.yaml");
    return "";
  } catch (error) {
    if (error instanceof PenstockError && error.code === "invalid_config") return error.message;
    throw error;
  }
}

test("defaults are filled in", () => {
  const stack = checkStack(good, "/stacks/Pulumi.test.yaml");
  expect(stack.gateway).toMatchObject({ host: "127.0.0.1", port: 8080, hold: { maxRequests: 1000 } });
  expect(stack.models[0]).toMatchObject({ format: "gguf", warm: false, adapters: [] });
  expect(stack.fleets[0]?.engine).toMatchObject({ nCtx: 4096, nGpuLayers: 999, maxConcurrentRequests: 10 });
});

test("every problem is reported at once, with its path and what is right", () => {
  const message = problemsOf({
    ...good,
    gateway: { apiKey: "short", prot: 1 },
    models: [{ id: "a/../../b", source: "ftp://x", wram: true }],
    fleets: [{ name: "Big Fleet", engine: { kind: "embedded", nCtx: "many" }, models: [] }],
  });
  expect(message).toMatch(/^\/stacks\/Pulumi.test.yaml has \d problems:/);
  for (const part of [
    "gateway.apiKey: ",
    "gateway.prot: unknown key; there are host, port, apiKey",
    "models[0].id: must be letters",
    "models[0].source: must start with file://",
    "models[0].wram: unknown key; there are id, source",
    "fleets[0].name: must be lower-case",
    "fleets[0].engine.nCtx: ",
    "fleets[0].models: ",
  ]) {
    expect(message).toContain(part);
  }
});

test.each([
  [{ fleets: [{ ...good.fleets[0], models: ["b"] }] }, "fleets[0].models[0]: no model named `b`; there are a"],
  [{ fleets: [{ ...good.fleets[0], models: ["b"] }] }, "models[0]: no fleet serves `a`"],
  [{ fleets: [good.fleets[0], good.fleets[0]] }, "fleets[1].name: another fleet has this name"],
  [{ models: [good.models[0], good.models[0]] }, "models[1].id: another model has this id"],
  [{ fleets: [good.fleets[0], { ...good.fleets[0], name: "two" }] }, "models[0]: 2 fleets serve `a`"],
  [{ cloud: "gcp" }, "cloud: "],
  [{ fleets: [{ ...good.fleets[0], engine: { kind: "vlm" } }] }, "fleets[0].engine.kind: "],
])("cross-check %#", (change, problem) => {
  expect(problemsOf({ ...good, ...change })).toContain(problem);
});

test("a relative file:// source is relative to the stack file", () => {
  const stack = checkStack(
    { ...good, models: [{ id: "a", source: "file://../blobs/a.gguf" }] },
    "/repo/stacks/Pulumi.test.yaml",
  );
  expect(stack.models[0]?.source).toBe("file:///repo/blobs/a.gguf");
});

test("broken YAML and a missing file are errors of configuration that say where", async () => {
  await expect(loadStack("/nowhere/Pulumi.x.yaml")).rejects.toMatchObject({
    code: "invalid_config",
    message: expect.stringContaining("/nowhere/Pulumi.x.yaml"),
  });
  const path = fileURLToPath(new URL("broken.yaml", import.meta.url));
  await expect(loadStack(path)).rejects.toMatchObject({ message: expect.stringMatching(/YAML: .*line 4/) });
});

test("every stack file loads and names the schema", async () => {
  const folder = fileURLToPath(new URL("../../stacks", import.meta.url));
  const files = readdirSync(folder).filter((name) => name.endsWith(".yaml"));
  expect(files).toContain("Pulumi.local.yaml");
  for (const file of files) expect((await loadStack(`${folder}/${file}`)).version).toBe(1);
});

test("the JSON Schema knows every key and refuses unknown ones", () => {
  const schema = JSON.stringify(stackFileSchema());
  for (const key of ["apiKey", "maxConcurrentRequests", "warm", "drainSeconds"]) expect(schema).toContain(`"${key}"`);
  expect(schema).toContain('"additionalProperties":false');
});
