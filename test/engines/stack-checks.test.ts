import { expect, test } from "vitest";
import { crossChecks } from "../../infra/stack/cross-checks.ts";
import { stackSchema } from "../../infra/stack/schema.ts";

/** A stack with one model on one engine. */
function problems(engine: Record<string, unknown>, model: Record<string, unknown> = {}): string[] {
  const source = "https://models.example/llama";
  const stack = stackSchema.parse({
    version: 1,
    cloud: "local",
    gateway: { apiKey: "a-key-of-a-test" },
    models: [{ id: "llama", source, format: "safetensors", ...model }],
    fleets: [{ name: "gpus", engine, models: ["llama"] }],
  });
  return crossChecks(stack);
}

const adapters = ["legal", "medical"].map((name) => ({ name, source: "https://models.example/lora" }));

test.each([
  { title: "a good pair", engine: { kind: "vllm" }, model: {}, says: [] },
  { title: "adapters that fit", engine: { kind: "vllm", lora: {} }, model: { adapters }, says: [] },
  {
    title: "an engine that cannot work",
    engine: { kind: "vllm", tensorParallel: 3, nodes: 2 },
    model: {},
    says: [/^fleets\[0\]\.engine: .*2 nodes cannot share evenly/],
  },
  {
    title: "weights that the engine cannot read",
    engine: { kind: "vllm" },
    model: { format: "gguf" },
    says: [/^models\[0\]\.format: the vllm engine reads safetensors, not gguf$/],
  },
  {
    title: "an engine without adapters",
    engine: { kind: "trtllm" },
    model: { adapters },
    says: [/^models\[0\]\.adapters: the trtllm engine cannot load adapters$/],
  },
  {
    title: "an engine that was not told to take adapters",
    engine: { kind: "vllm" },
    model: { adapters },
    says: [/^models\[0\]\.adapters: the vllm engine holds 0, not 2; set the engine's lora$/],
  },
  {
    title: "more adapters than fit",
    engine: { kind: "vllm", lora: { maxLoras: 1, maxCpuLoras: 1 } },
    model: { adapters },
    says: [/holds 1, not 2; leave some out, or raise the engine's limit$/],
  },
  {
    title: "all of it at once",
    engine: { kind: "trtllm", task: "embed" },
    model: { adapters, format: "gguf" },
    says: [/^fleets\[0\]\.engine: .*embed/, /^models\[0\]\.format/, /^models\[0\]\.adapters/],
  },
])("a stack with $title", ({ engine, model, says }) => {
  expect(problems(engine, model)).toEqual(says.map((each): unknown => expect.stringMatching(each)));
});
