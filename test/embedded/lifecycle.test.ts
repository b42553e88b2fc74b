import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EngineProcess, runToEnd, sseEvents, type ErrorAnswer } from "./engine-process.ts";
import { tinyLora, tinyModel, writeModel } from "./tiny-gguf.ts";
import { temporaryFolder } from "../support/folders.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let tiny: string;

beforeAll(async () => {
  folder = await temporaryFolder();
  tiny = await writeModel(join(folder.path, "tiny.gguf"), tinyModel());
});

afterAll(() => folder[Symbol.asyncDispose]());

const long = { model: "tiny", prompt: "hello", max_tokens: 1000, ignore_eos: true, stream: true };

/** Lines of stderr that are not structured log. */
const plainLines = (stderr: string) => stderr.split("\n").filter((line) => line !== "" && !line.startsWith("{"));

describe("a start that cannot work ends with 1 and one line", () => {
  const damaged = (at: number, byte: number) => {
    const bytes = tinyModel();
    bytes[at] = byte;
    return bytes;
  };

  test.each([
    ["a model that is not there", undefined, "there is no such file"],
    ["a file that is no GGUF", Buffer.from("just some text, long enough to be read"), "does not begin with GGUF"],
    ["a GGUF cut short", tinyModel().subarray(0, 200_000), "cut short"],
    ["a flipped tensor count", damaged(8, 0x70), "is not a whole GGUF file"],
    ["a flipped tensor name", damaged(tinyModel().indexOf("blk.0.attn_q"), 0x7a), "cannot load"],
    ["an adapter in place of a model", tinyLora(), "is a LoRA adapter"],
  ])("%s", async (_, bytes, message) => {
    const path = join(folder.path, bytes === undefined ? "gone.gguf" : "damaged.gguf");
    if (bytes !== undefined) await writeFile(path, bytes);
    const { code, stderr } = await runToEnd("--model-path", path, "--port", "0", "--log-level", "silent");
    expect(code).toBe(1);
    expect(plainLines(stderr)).toEqual([expect.stringContaining(message)]);
    expect(stderr).not.toContain("    at ");
  });

  test("a port in use", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    const port = typeof address === "object" && address !== null ? String(address.port) : "";
    const { code, stderr } = await runToEnd("--model-path", tiny, "--port", port, "--log-level", "silent");
    server.close();
    expect(code).toBe(1);
    expect(plainLines(stderr)).toEqual([expect.stringMatching(/Port \d+ on 127.0.0.1 is in use.*--port/)]);
  });

  test("an adapter that is not there", async () => {
    const argv = ["--model-path", tiny, "--port", "0", "--log-level", "silent", "--lora", "a=/nowhere/a.gguf"];
    const { code, stderr } = await runToEnd(...argv);
    expect(code).toBe(1);
    expect(plainLines(stderr)).toEqual([expect.stringContaining("there is no such file")]);
  });
});

test("wrong options end with 2 and tell all of it", async () => {
  const { code, stderr } = await runToEnd("--port", "x", "--speed", "9");
  expect(code).toBe(2);
  expect(stderr.trim().split("\n")).toHaveLength(4);
});

test("--version", async () => {
  const version = await runToEnd("--version");
  expect(version.code).toBe(0);
  const manifest = JSON.parse(await readFile("package.json", "utf8")) as { version: string }; // our own
  expect(version.stdout.trim()).toBe(manifest.version);
});

describe("start options", () => {
  test("listens before the model is loaded, then gets ready; --memory eager; context clamped with a warning", async () => {
    const argv = ["--model-path", tiny, "--memory", "eager", "--log-level", "info"];
    await using engine = await EngineProcess.listening(...argv);
    expect((await engine.get("/health")).status).toBe(200);
    expect([200, 503]).toContain((await engine.get("/ready")).status);
    await engine.until(({ state }) => state === "ready");
    expect(await engine.stats()).toMatchObject({
      memory: { loading: "eager" },
      model: { context_tokens: 1024 },
      threads: 1,
    });
    engine.child.kill("SIGTERM");
    const { stderr, code } = await engine.ended();
    expect(code).toBe(0);
    expect(stderr).toContain("--n-ctx is more than the model was trained on");
  });

  test("a key guards the API and not the probes", async () => {
    await using engine = await EngineProcess.start("--model-path", tiny, "--api-key", "secret");
    expect((await engine.get("/v1/models")).status).toBe(401);
    expect((await engine.get("/metrics")).status).toBe(200);
    const headers = { authorization: "Bearer secret" };
    expect((await fetch(`${engine.url}/v1/models`, { headers })).status).toBe(200);
  });
});

describe("a stop", () => {
  test("SIGTERM finishes a stream, refuses new work, says so, and exits 0", async () => {
    await using engine = await EngineProcess.start("--model-path", tiny);
    // Without --stop-with-stdin, its end does not matter.
    engine.child.stdin?.end();
    const events = sseEvents(await engine.post("/v1/completions", long));
    await events.next();
    engine.child.kill("SIGTERM");
    await engine.until(({ state }) => state === "draining");
    const refused = await engine.post("/v1/completions", long);
    expect([refused.status, ((await refused.json()) as ErrorAnswer).error.code]).toEqual([503, "draining"]);
    expect((await engine.get("/ready")).status).toBe(503);
    expect((await engine.get("/health")).status).toBe(200);
    let last = "";
    for await (const { data } of events) last = data;
    expect(last).toBe("[DONE]");
    expect((await engine.ended()).code).toBe(0);
  });

  test("SIGTERM while the model loads exits 0", async () => {
    await using engine = await EngineProcess.listening("--model-path", tiny);
    engine.child.kill("SIGTERM");
    expect(await engine.ended()).toMatchObject({ code: 0, stderr: "" });
  });

  test("--drain-seconds bounds the wait", async () => {
    await using engine = await EngineProcess.start("--model-path", tiny, "--drain-seconds", "0");
    const response = await engine.post("/v1/completions", { ...long, n: 60 });
    const reading = response.text().catch(() => "cut");
    engine.child.kill("SIGTERM");
    expect((await engine.ended()).code).toBe(0);
    expect(await reading).not.toContain("[DONE]");
  });

  test("a second signal ends it at once", async () => {
    await using engine = await EngineProcess.start("--model-path", tiny);
    const response = await engine.post("/v1/completions", { ...long, n: 60 });
    engine.child.kill("SIGINT");
    await engine.until(({ state }) => state === "draining");
    engine.child.kill("SIGINT");
    expect((await engine.ended()).code).toBe(1);
    await response.text().catch(() => "cut");
  });

  test("--stop-with-stdin: the end of stdin ends it", async () => {
    await using engine = await EngineProcess.start("--model-path", tiny, "--stop-with-stdin");
    engine.child.stdin?.end();
    expect((await engine.ended()).code).toBe(0);
  });
});
