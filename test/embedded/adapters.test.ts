import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EngineProcess, sseEvents, type Completion, type ErrorAnswer } from "./engine-process.ts";
import { tinyLora, tinyModel, writeModel } from "./tiny-gguf.ts";
import { temporaryFolder } from "../support/folders.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let engine: EngineProcess;

beforeAll(async () => {
  folder = await temporaryFolder();
  const path = await writeModel(join(folder.path, "tiny.gguf"), tinyModel());
  const lora = await writeModel(join(folder.path, "first.gguf"), tinyLora(7));
  engine = await EngineProcess.start(
    "--model-path",
    path,
    "--parallel",
    "2",
    "--n-ctx",
    "256",
    "--lora",
    `first=${lora}`,
  );
});

afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

const greedy = async (model: string) => {
  const body = { model, prompt: "hello the", max_tokens: 20, temperature: 0, ignore_eos: true };
  return (await engine.json<Completion>("/v1/completions", body)).choices[0]?.text;
};

const load = (name: string, path: string) => engine.post("/v1/load_lora_adapter", { lora_name: name, lora_path: path });
const unload = (name: string) => engine.post("/v1/unload_lora_adapter", { lora_name: name });
const errorOf = async (response: Response) => {
  const { error } = (await response.json()) as ErrorAnswer; // a refusal is OpenAI's error body
  return { status: response.status, code: error.code, param: error.param, message: error.message };
};

/** The adapter with one text in its header in place of another of the same length. */
function edited(from: string, to: string): Buffer {
  return Buffer.from(tinyLora().toString("latin1").replaceAll(from, to), "latin1");
}

describe("LoRA adapters", () => {
  test("an adapter from the command line changes the text, and the base stays as it is", async () => {
    const base = await greedy("tiny");
    const adapted = await greedy("tiny:first");
    expect(adapted).not.toBe(base);
    expect(await greedy("tiny")).toBe(base);
    expect(await greedy("tiny:first")).toBe(adapted);
  });

  test("are listed with their parent", async () => {
    const list = (await (await engine.get("/v1/models")).json()) as { data: { id: string; parent: string | null }[] };
    expect(list.data).toMatchObject([
      { id: "tiny", parent: null, max_model_len: 256 },
      { id: "tiny:first", parent: "tiny" },
    ]);
    expect((await engine.get("/v1/models/tiny:first")).status).toBe(200);
    expect((await engine.get("/v1/models/tiny%3Afirst")).status).toBe(200);
    expect((await engine.get("/v1/models/%zz")).status).toBe(404);
    expect(await errorOf(await engine.get("/v1/models/none"))).toMatchObject({ status: 404, code: "model_not_found" });
  });

  test("come and go at run time, and a new file under the old name is read anew", async () => {
    const path = await writeModel(join(folder.path, "second.gguf"), tinyLora(8));
    expect((await load("second", path)).status).toBe(200);
    const before = await greedy("tiny:second");
    expect(await errorOf(await load("second", path))).toMatchObject({ status: 400, param: "lora_name" });
    expect((await unload("second")).status).toBe(200);
    const gone = await engine.post("/v1/completions", { model: "tiny:second", prompt: "x" });
    expect(gone.status).toBe(404);
    await writeFile(path, tinyLora(9));
    expect((await load("second", path)).status).toBe(200);
    expect(await greedy("tiny:second")).not.toBe(before);
    expect((await unload("second")).status).toBe(200);
  });

  test("more adapters than contexts take turns", async () => {
    const names = ["a", "b", "c", "d", "e", "f"];
    for (const [index, name] of names.entries()) {
      const path = await writeModel(join(folder.path, `${name}.gguf`), tinyLora(20 + index));
      expect((await load(name, path)).status).toBe(200);
    }
    const texts: (string | undefined)[] = [];
    for (const name of names) texts.push(await greedy(`tiny:${name}`));
    expect(new Set(texts).size).toBe(names.length);
    const again = await Promise.all(names.slice(0, 4).map((name) => greedy(`tiny:${name}`)));
    expect(again).toEqual(texts.slice(0, 4));
    for (const name of names) expect((await unload(name)).status).toBe(200);
  });

  test("one that answers a request cannot go", async () => {
    const body = { model: "tiny:first", prompt: "x", max_tokens: 250, ignore_eos: true, stream: true };
    const events = sseEvents(await engine.post("/v1/completions", body));
    await events.next();
    expect(await errorOf(await unload("first"))).toMatchObject({ status: 409, code: "model_in_use" });
    for await (const event of events) expect(event.event).toBe("message");
  });

  test.each([
    ["no bytes", Buffer.alloc(0), "ends inside its header"],
    ["a model", tinyModel(), "is a full model, not an adapter"],
    ["a file cut short", tinyLora().subarray(0, 4000), "cut short"],
    ["another architecture", edited("llama", "qwen3"), "of architecture qwen3"],
    ["weights for tensors that are not there", edited("blk.1", "blk.9"), "which this model does not have"],
  ])("%s is refused, and the engine lives on", async (_, bytes, message) => {
    const path = join(folder.path, "bad.gguf");
    await writeFile(path, bytes);
    expect(await errorOf(await load("bad", path))).toMatchObject({
      status: 400,
      param: "lora_path",
      message: expect.stringContaining(message),
    });
    expect((await engine.stats()).model.adapters).not.toContain("bad");
  });

  test("wrong names and unknown adapters are refused", async () => {
    expect(await errorOf(await load("../x", "y"))).toMatchObject({ status: 400, param: "lora_name" });
    expect(await errorOf(await load("x", "/nowhere/x.gguf"))).toMatchObject({ status: 400, param: "lora_path" });
    expect(await errorOf(await unload("nobody"))).toMatchObject({ status: 404, param: "lora_name" });
  });
});
