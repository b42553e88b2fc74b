import { randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startAgent, type Agent, type AgentOptions } from "../../runtime/agent/agent.ts";
import { heartbeat, type Heartbeat, type ModelReport } from "../../runtime/contracts/agent.ts";
import type { Command } from "../../runtime/engines/engine.ts";
import { createLog } from "../../runtime/lib/log.ts";
import type { Settings } from "../fakes/engine/faults.ts";
import { FakeNvidiaSmi, type Machine } from "../fakes/nvidia-smi.ts";
import { temporaryFolder, type TemporaryFolder } from "../support/folders.ts";
import { repository } from "../support/repository.ts";
import { safetensors } from "../support/safetensors-bytes.ts";

const simulator = join(repository, "test/fakes/engine/main.ts");

/** The simulator in place of an engine's own program. */
export function simulated(persona: "vllm" | "triton" | "trtllm" | "llamacpp"): Command {
  return [process.execPath, simulator, "--as", persona];
}

/** What an agent answered. */
export interface Answer {
  readonly status: number;
  // A test looks into bodies as it expects them to be.
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly body: any;
}

/** A real agent over real sockets whose engines are simulated, on a node with simulated GPUs. */
export interface SimAgent extends AsyncDisposable {
  readonly agent: Agent;
  readonly folder: TemporaryFolder;
  post(path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>;
  get(path: string): Promise<Answer>;
  beat(): Promise<Heartbeat>;
  model(id: string): Promise<ModelReport>;
  /** A prompt through the relay. */
  ask(model: string, about?: { adapter?: string; max_tokens?: number; engineModel?: string }): Promise<Answer>;
  /** A new agent on the same disk. */
  restart(): Promise<void>;
}

/** Starts one. `options` replaces parts of the agent's. */
export async function simAgent(options: Partial<AgentOptions> & { machine?: Machine } = {}): Promise<SimAgent> {
  const folder = await temporaryFolder();
  const { machine = "a10g", ...rest } = options;
  const smi = await FakeNvidiaSmi.of(machine, folder.path);
  const token = options.token ?? randomBytes(16).toString("hex");
  const start = (): Promise<Agent> =>
    startAgent(
      {
        agentId: "sim",
        listen: { host: "127.0.0.1", port: 0 },
        token,
        cacheDirectory: join(folder.path, "cache"),
        stateDirectory: join(folder.path, "state"),
        sources: {},
        engineEnv: {
          PATH: process.env["PATH"] ?? "",
          // Halves the start of a simulated engine.
          NODE_COMPILE_CACHE: join(repository, "node_modules/.cache/node"),
        },
        engineCommands: {
          vllm: simulated("vllm"),
          triton: simulated("triton"),
          trtllm: simulated("trtllm"),
        },
        engineLogLevel: "info",
        drainTimeoutMs: 5_000,
        readyTimeoutMs: 20_000,
        scrapeIntervalMs: 50,
        gpuCommand: smi.tool.command,
        ...rest,
      },
      createLog("agent", "silent"),
    );
  let agent = await start();
  const send = async (path: string, init: RequestInit): Promise<Answer> => {
    const response = await fetch(agent.url + path, init);
    const text = await response.text();
    try {
      return { status: response.status, body: JSON.parse(text) };
    } catch {
      return { status: response.status, body: text };
    }
  };
  const authorization = `Bearer ${token}`;
  const sim: SimAgent = {
    get agent() {
      return agent;
    },
    folder,
    post: (path, body = {}, headers = {}) =>
      send(path, {
        method: "POST",
        headers: { authorization, "content-type": "application/json", ...headers },
        body: JSON.stringify(body),
      }),
    get: (path) => send(path, { headers: { authorization } }),
    beat: async () => heartbeat.parse((await sim.post("/heartbeat")).body),
    async model(id) {
      const found = (await sim.beat()).models.find(({ model_id }) => model_id === id);
      if (found === undefined) throw new Error(`the heartbeat does not speak of ${id}`);
      return found;
    },
    ask: (model, { adapter, max_tokens = 8, engineModel } = {}) =>
      sim.post(
        `/infer/${encodeURIComponent(model)}/v1/completions`,
        {
          model: engineModel ?? (adapter === undefined ? model : `${model}:${adapter}`),
          prompt: "Once upon a time ".repeat(20),
          max_tokens,
        },
        adapter === undefined ? {} : { "x-penstock-adapter": adapter },
      ),
    async restart() {
      await agent.stop();
      agent = await start();
    },
    async [Symbol.asyncDispose]() {
      await agent.stop();
      await folder[Symbol.asyncDispose]();
    },
  };
  return sim;
}

/** Sizes of the test's base model, which its adapters must fit. */
const hidden = 8;

/** A folder with a tiny safetensors model and what its simulated engine does. Answers its source. */
export async function simModel(folder: TemporaryFolder, name: string, settings: Settings = {}): Promise<string> {
  const path = join(folder.path, "models", name);
  await mkdir(path, { recursive: true });
  const config = {
    architectures: ["LlamaForCausalLM"],
    hidden_size: hidden,
    intermediate_size: 16,
    num_attention_heads: 2,
    num_key_value_heads: 2,
    num_hidden_layers: 1,
  };
  await writeFile(join(path, "config.json"), JSON.stringify(config));
  await writeFile(join(path, "tokenizer.json"), "{}");
  await writeFile(
    join(path, "model.safetensors"),
    safetensors({ "model.layers.0.self_attn.q_proj.weight": { shape: [hidden, hidden] } }),
  );
  await writeFile(join(path, "sim.json"), JSON.stringify({ weightsSeed: name, ...settings }));
  return `file://${path}`;
}

/** A folder with a PEFT adapter for `simModel`. Answers its source. */
export async function simAdapter(folder: TemporaryFolder, name: string, rank = 4): Promise<string> {
  const path = join(folder.path, "adapters", name);
  await mkdir(path, { recursive: true });
  const config = {
    peft_type: "LORA",
    r: rank,
    lora_alpha: 8,
    target_modules: ["q_proj"],
    base_model_name_or_path: "m",
  };
  await writeFile(join(path, "adapter_config.json"), JSON.stringify(config));
  await writeFile(
    join(path, "adapter_model.safetensors"),
    safetensors({
      "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": { shape: [rank, hidden] },
      "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": { shape: [hidden, rank] },
    }),
  );
  return `file://${path}`;
}

/** Body of a load of a model in safetensors. */
export function loadOf(id: string, source: string, { engine = {}, ...more }: LoadParts = {}): object {
  return { model_id: id, model: { id, source, format: "safetensors" }, engine: { kind: "vllm", ...engine }, ...more };
}

interface LoadParts {
  readonly engine?: object;
  readonly idle?: object;
  readonly pinned?: boolean;
}
