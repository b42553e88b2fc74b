import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { EngineVersions } from "../../../runtime/agent/supervisor/version.ts";
import { engineSpec } from "../../../runtime/contracts/engine.ts";
import { engines } from "../../../runtime/engines/index.ts";
import { tinyLora, tinyModel, writeModel } from "../../embedded/tiny-gguf.ts";
import { temporaryFolder } from "../../support/folders.ts";
import { repository } from "../../support/repository.ts";
import {
  buildTimeoutMs,
  lackingLlamaServer,
  llamaServer,
  type LlamaServer,
} from "../../support/servers/llama-server.ts";
import { EngineOnTest } from "./running-engine.ts";

const lacking = lackingLlamaServer();
const title = lacking === undefined ? "llama-server" : `llama-server (not here: ${lacking})`;
const demoModel = join(repository, "runtime/demo/blobs/penstock-demo.gguf");
const recordedHelp = join(repository, "test/contract/engine/help/llama-server-v0.4.0.txt");

describe.skipIf(lacking !== undefined)(title, () => {
  let server: LlamaServer;
  beforeAll(async () => {
    server = await llamaServer();
  }, buildTimeoutMs);

  const start = (given: Record<string, unknown>, modelPath: string, adapters: Record<string, string> = {}) => {
    const spec = engineSpec.parse({ kind: "llamacpp", contextSize: 256, gpuLayers: 0, ...given });
    return EngineOnTest.start({ spec, command: [server.command], modelPath, adapters });
  };

  test("is the version that Penstock was written against", async () => {
    const versions = new EngineVersions({ PATH: process.env["PATH"] ?? "" });
    expect(await versions.of("llamacpp", [server.command])).toEqual(engines.llamacpp.version?.pinned);
  });

  test("has the flags that are recorded of it", async () => {
    expect(flagsOf(server.helpText)).toEqual(flagsOf(await readFile(recordedHelp, "utf8")));
  });

  test("gives each sequence the context of the spec", async () => {
    await using engine = await start({ parallelSequences: 3 }, demoModel);
    const props: unknown = JSON.parse((await engine.call({ method: "GET", path: "/props" })).text);
    expect(props).toMatchObject({ total_slots: 3, default_generation_settings: { n_ctx: 256 } });
  });

  test("applies the adapters that it starts with to every request, whatever their paths", async () => {
    await using folder = await temporaryFolder();
    const model = await writeModel(join(folder.path, "tiny.gguf"), tinyModel());
    const odd = await writeModel(join(folder.path, 'a,"b" c.gguf'), tinyLora(7));
    const plain = await writeModel(join(folder.path, "plain.gguf"), tinyLora(8));
    await using engine = await start({}, model, { odd, plain });
    const list: unknown = JSON.parse((await engine.call({ method: "GET", path: "/lora-adapters" })).text);
    expect(list).toEqual([odd, plain].map((path): unknown => expect.objectContaining({ path, scale: 1 })));
  });

  test("shows nobody what others ask", async () => {
    await using engine = await start({}, demoModel);
    expect((await engine.call({ method: "GET", path: "/slots" })).status).toBe(501);
  });
});

function flagsOf(helpText: string): string[] {
  return [...new Set(helpText.match(/(?<![\w-])--[a-z][\w-]*/g))].toSorted();
}
