import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { differenceOf } from "../../../runtime/agent/models/golden.ts";
import { engineSpec, type EngineSpec } from "../../../runtime/contracts/engine.ts";
import type { Command } from "../../../runtime/engines/engine.ts";
import { engineOf, engines } from "../../../runtime/engines/index.ts";
import { readSignals } from "../../../runtime/engines/signals.ts";
import { tinyLora, tinyModel, writeModel } from "../../embedded/tiny-gguf.ts";
import { temporaryFolder, type TemporaryFolder } from "../../support/folders.ts";
import { repository } from "../../support/repository.ts";
import { buildTimeoutMs, lackingLlamaServer, llamaServer } from "../../support/servers/llama-server.ts";
import { EngineOnTest } from "./running-engine.ts";

const simulator = fileURLToPath(new URL("../../fakes/engine/main.ts", import.meta.url));

/** Files that engines are started with. */
interface Weights {
  readonly model: string;
  readonly lora: string;
}

interface Subject {
  readonly title: string;
  readonly spec: EngineSpec;
  /** Why it cannot run here; undefined when it can. */
  readonly lacking?: string | undefined;
  readonly command: () => Promise<Command>;
  /** `tiny`: random weights, and an adapter for them. `demo`: words. `folder`: no weights at all. */
  readonly weights: "tiny" | "demo" | "folder";
}

/** The llama-server that is built for the tests. A model of random weights writes what it would answer with a 500. */
const llama = (title: string, given: Record<string, unknown>, ...options: string[]): Subject => ({
  title,
  spec: engineSpec.parse({ kind: "llamacpp", parallelSequences: 1, contextSize: 256, gpuLayers: 0, ...given }),
  lacking: lackingLlamaServer(),
  command: async () => [(await llamaServer()).command, ...options],
  weights: "demo",
});

const simulated = (given: unknown): Subject => {
  const spec = engineSpec.parse(given);
  const command: Command = [process.execPath, simulator, "--as", spec.kind];
  const weights = spec.kind === "llamacpp" ? "tiny" : "folder";
  return { title: `simulated ${JSON.stringify(given)}`, spec, command: async () => command, weights };
};

const subjects: readonly Subject[] = [
  {
    title: "embedded",
    spec: engineSpec.parse({ kind: "embedded", parallelSequences: 1, nCtx: 256, nGpuLayers: 0 }),
    command: async () => engines.embedded.command,
    weights: "tiny",
  },
  llama("llama-server", {}),
  llama("llama-server with a small KV cache for two", {
    parallelSequences: 2,
    kvCacheType: "q8_0",
    flashAttention: "on",
  }),
  // The demo model is no embedding model, so it must be told how to make one vector of many.
  llama("llama-server for embeddings", { task: "embed" }, "--pooling", "mean"),
  simulated({ kind: "vllm", lora: {} }),
  simulated({ kind: "vllm", lora: {}, sleepLevel: 2 }),
  simulated({ kind: "vllm", sleepLevel: 0 }),
  simulated({ kind: "vllm", task: "embed" }),
  simulated({ kind: "triton" }),
  simulated({ kind: "triton", task: "embed" }),
  simulated({ kind: "trtllm" }),
  simulated({ kind: "llamacpp" }),
];

let folder: TemporaryFolder;
let files: Readonly<Record<Subject["weights"], Weights>>;

beforeAll(async () => {
  folder = await temporaryFolder();
  const at = (name: string): string => join(folder.path, name);
  const lora = await writeModel(at("lora.gguf"), tinyLora());
  for (const path of ["model", "lora"]) await mkdir(at(path));
  await writeFile(at("lora/adapter_config.json"), JSON.stringify({ r: 8, lora_alpha: 16 }));
  files = {
    tiny: { model: await writeModel(at("tiny.gguf"), tinyModel()), lora },
    demo: { model: join(repository, "runtime/demo/blobs/penstock-demo.gguf"), lora },
    folder: { model: at("model"), lora: at("lora") },
  };
});
afterAll(() => folder[Symbol.asyncDispose]());

/** A subject with its title and, where it cannot run, the reason in it. */
const titled = (subject: Subject) => ({
  ...subject,
  title: subject.lacking === undefined ? subject.title : `${subject.title} (not here: ${subject.lacking})`,
});
const hasRuntimeAdapters = ({ spec }: Subject): boolean =>
  engines[spec.kind].capabilities.adapters === "runtime" && engineOf(spec).adapterLimits(spec).count > 0;
const canSleep = ({ spec }: Subject): boolean => engineOf(spec).sleep(spec, "any") !== null;

async function start(subject: Subject, adapters: Readonly<Record<string, string>> = {}): Promise<EngineOnTest> {
  const command = await subject.command();
  return EngineOnTest.start({ spec: subject.spec, command, modelPath: files[subject.weights].model, adapters });
}

describe.each(subjects.map(titled))("$title", (subject) => {
  describe.skipIf(subject.lacking !== undefined)("running", () => {
    const { spec } = subject;
    let engine: EngineOnTest;
    beforeAll(async () => {
      engine = await start(subject);
    }, buildTimeoutMs);
    afterAll(() => engine[Symbol.asyncDispose]());

    test("takes calls and is healthy", async () => {
      const { ready, health } = engine.running.launch;
      for (const call of [ready, health]) expect(call === null ? null : (await engine.call(call)).ok).toBe(true);
    });

    test("answers the same probe the same", async () => {
      const first = await engine.probe();
      expect(first.kind === "embedding" ? first.vector.length : first.text.length).toBeGreaterThan(0);
      expect(differenceOf(first, await engine.probe())).toBeNull();
    });

    test("has the signals that it says it has", async () => {
      const metrics = engineOf(spec).metrics(spec);
      const { values, missing } = readSignals(metrics, (await engine.call(metrics.call)).text);
      expect(missing).toEqual([]);
      expect(values.running ?? 0).toBe(0);
    });

    test("ends at SIGTERM", async () => {
      await using other = await start(subject);
      await other.running.stop(20_000);
      expect(await other.running.exited).not.toMatch(/SIGKILL/);
    });
  });
});

describe.each(subjects.filter(hasRuntimeAdapters).map(titled))("adapters: $title", (subject) => {
  test("come and go at run time", async () => {
    await using engine = await start(subject);
    const described = engineOf(subject.spec);
    const adapter = { name: "legal", servedName: engine.servedName, path: files[subject.weights].lora };
    const base = await engine.probe();
    await expect(engine.probe("legal")).rejects.toThrow(/404/);
    await engine.calls([described.loadAdapter(adapter)]);
    expect(differenceOf(base, await engine.probe("legal"))).not.toBeNull();
    expect(differenceOf(base, await engine.probe())).toBeNull();
    await engine.calls([described.unloadAdapter(adapter)]);
    await expect(engine.probe("legal")).rejects.toThrow(/404/);
  });

  test("may be there from the start", async () => {
    await using engine = await start(subject, { legal: files[subject.weights].lora });
    expect(differenceOf(await engine.probe(), await engine.probe("legal"))).not.toBeNull();
  });
});

describe.each(subjects.filter(canSleep).map(titled))("sleep: $title", (subject) => {
  test("computes the same when it wakes", async () => {
    await using engine = await start(subject);
    const described = engineOf(subject.spec);
    const before = await engine.probe();
    await engine.calls(described.sleep(subject.spec, engine.servedName) ?? []);
    await engine.calls(described.wake(subject.spec, engine.servedName));
    expect(differenceOf(before, await engine.probe())).toBeNull();
  });
});

test("a replica over two nodes: the leader serves, the worker only joins", async () => {
  await using programs = await temporaryFolder();
  const ray = join(programs.path, "ray");
  await writeFile(ray, `#!/bin/sh\nexec "${process.execPath}" "${simulator}" --as ray "$@"\n`, { mode: 0o755 });
  const { spec, command } = simulated({ kind: "vllm", nodes: 2, tensorParallel: 2 });
  const node = async (index: number): Promise<EngineOnTest> => {
    const group = { leaderAddress: "127.0.0.1", size: 2, index };
    const modelPath = files.folder.model;
    return EngineOnTest.start({ spec, command: await command(), modelPath, group, programs: programs.path });
  };
  await using leader = await node(0);
  await using worker = await node(1);
  expect(await leader.probe()).toMatchObject({ text: expect.stringMatching(/./s) });
  expect(worker.running.isGone).toBe(false);
});
