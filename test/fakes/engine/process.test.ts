import { mkdir, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../../support/folders.ts";
import type { Settings } from "./faults.ts";
import { freePort } from "../../support/servers/free-port.ts";
import { readState, setFaults, spawnSimulator } from "./spawn.ts";

/** A model folder with a `sim.json`, and the command line of a vLLM that serves it. */
async function placeModel(folder: string, settings: Settings = {}) {
  const path = join(folder, "model");
  await mkdir(path, { recursive: true });
  await writeFile(join(path, "sim.json"), JSON.stringify(settings));
  const port = await freePort();
  const argv = ["serve", path, "--served-model-name", "m", "--host", "127.0.0.1", "--port", String(port)];
  return { path, port, url: `http://127.0.0.1:${port}`, argv: ["--as", "vllm", ...argv] };
}

async function statusOf(url: string, timeoutMs = 2_000): Promise<number | "refused" | "silent"> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) });
    await response.body?.cancel();
    return response.status;
  } catch (error) {
    return error instanceof Error && error.name === "TimeoutError" ? "silent" : "refused";
  }
}

async function untilReady(url: string, path = "/health"): Promise<void> {
  await expect.poll(() => statusOf(url + path), { interval: 20 }).toBe(200);
}

async function complete(url: string, maxTokens = 8): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    body: JSON.stringify({ model: "m", prompt: "hello", max_tokens: maxTokens, ignore_eos: true }),
  });
  const answer = (await response.json()) as { choices?: { text: string }[] }; // undefined is told apart below
  return answer.choices?.[0]?.text ?? `status ${response.status}`;
}

/** Reads a streamed completion; `onFirst` hears of its first chunk. Rejects when the stream is cut. */
async function readStream(url: string, maxTokens: number, onFirst: () => void): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    body: JSON.stringify({ model: "m", prompt: "x", max_tokens: maxTokens, ignore_eos: true, stream: true }),
  });
  const decoder = new TextDecoder();
  let received = "";
  for await (const chunk of response.body ?? []) {
    if (received === "") onFirst();
    received += decoder.decode(chunk);
  }
  return received;
}

describe("vLLM's command line", () => {
  test("serves what it is told to, and answers the same after a restart", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path);
    const texts: string[] = [];
    for (let start = 0; start < 2; start += 1) {
      await using engine = spawnSimulator(argv);
      await untilReady(url);
      texts.push(await complete(url));
      engine.kill("SIGTERM");
      expect(await engine.exited).toEqual({ code: 0, signal: null });
    }
    expect(texts[0]).toMatch(/^( [a-z]{3}){8}$/);
    expect(texts[1]).toBe(texts[0]);
  });

  test.each([
    [["--as", "vllm", "serve", "/m", "--max-modell-len", "5"], "vllm: error: unrecognized arguments: --max-modell-len"],
    [["--as", "vllm", "serve", "/m", "--port", "x"], "argument --port: invalid int value: 'x'"],
    [["--as", "vllm", "serve"], "vllm: error"],
    [["--as", "trtllm", "/m", "--tp-syze", "1"], "unrecognized arguments: --tp-syze"],
    [["--as", "llamacpp"], "no model"],
    [["--as", "sglang"], "--as takes vllm, triton, trtllm, llamacpp or ray"],
  ])("%j ends with 2", async (argv, message) => {
    await using engine = spawnSimulator(argv);
    expect(await engine.exited).toEqual({ code: 2, signal: null });
    expect(engine.output()).toContain(message);
  });

  test.each([
    [["--as", "vllm", "--version"], {}, "0.22.1\n"],
    [["--as", "vllm", "--sim-version", "0.9.1", "--version"], {}, "0.9.1\n"],
    [["--as", "vllm", "--version"], { PENSTOCK_SIM_FAULTS: '{"wrong_version":"0.1.0"}' }, "0.1.0\n"],
    [["--as", "trtllm", "--help"], {}, "[TensorRT-LLM] TensorRT LLM version: 1.3.0\n"],
    [["--as", "llamacpp", "--version"], {}, "version: 0.4.0 (build 1, commit 80fb11a)"],
    [["--as", "ray", "start", "--head", "--port=6379"], {}, "Ray runtime started."],
  ])("%j with %j prints its line", async (argv, env, line) => {
    await using engine = spawnSimulator(argv, env);
    expect(await engine.exited).toEqual({ code: 0, signal: null });
    expect(engine.output()).toContain(line);
  });

  test("ray start --block stays", async () => {
    await using ray = spawnSimulator(["--as", "ray", "start", "--address=10.0.0.1:6379", "--block"]);
    await expect.poll(() => ray.output()).toContain("Ray runtime started.");
    ray.kill("SIGTERM");
    expect(await ray.exited).toEqual({ code: null, signal: "SIGTERM" });
  });

  test.each([
    ["--shutdown-timeout 20", "length"],
    ["--shutdown-timeout 0", "cut"],
  ])("SIGTERM with %s ends a stream in flight with %s", async (flags, ending) => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { step_delay_ms: 20 });
    await using engine = spawnSimulator([...argv, ...flags.split(" ")]);
    await untilReady(url);
    const stream = readStream(url, 40, () => engine.kill("SIGTERM"));
    expect(await stream.catch(() => "cut")).toContain(ending);
    expect(await engine.exited).toEqual({ code: 0, signal: null });
  });

  test("an engine that dies in its sleep ends its process, after it has said so", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path);
    await using engine = spawnSimulator([...argv, "--enable-sleep-mode"], { VLLM_SERVER_DEV_MODE: "1" });
    await untilReady(url);
    expect((await fetch(`${url}/sleep?level=1`, { method: "POST" })).status).toBe(200);
    expect(await complete(url)).toBe("status 500");
    expect(await engine.exited).toEqual({ code: 1, signal: null });
  });

  test("a typo in sim.json is no healthy engine", async () => {
    await using folder = await temporaryFolder();
    const { argv, path } = await placeModel(folder.path);
    await writeFile(join(path, "sim.json"), '{"never_redy":true}');
    await using engine = spawnSimulator(argv);
    expect((await engine.exited).code).toBe(1);
    expect(engine.output()).toContain("never_redy");
  });
});

describe("faults", () => {
  test("the calls are counted in order", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path);
    await using _engine = spawnSimulator(argv);
    await untilReady(url);
    await statusOf(`${url}/version?x=1`);
    const { calls, callCounts } = await readState(url);
    expect(calls.slice(-2)).toEqual(["GET /health", "GET /version?x=1"]);
    expect(callCounts["GET /version"]).toBe(1);
  });

  test("never_ready: alive, and no port", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { never_ready: true });
    await using engine = spawnSimulator(argv);
    await expect.poll(() => engine.output()).toContain("Initializing an engine");
    expect(await statusOf(`${url}/health`)).toBe("refused");
    engine.kill("SIGTERM");
    expect(await engine.exited).toEqual({ code: 0, signal: null });
  });

  test("die_at_load: CUDA is out of memory", async () => {
    await using folder = await temporaryFolder();
    const { argv } = await placeModel(folder.path, { die_at_load: true });
    await using engine = spawnSimulator(argv);
    expect(await engine.exited).toEqual({ code: 1, signal: null });
    expect(engine.output()).toContain("torch.OutOfMemoryError: CUDA out of memory");
  });

  test("die_at_load_times: the third start succeeds", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { die_at_load_times: 2 });
    for (let start = 0; start < 2; start += 1) {
      await using engine = spawnSimulator(argv);
      expect((await engine.exited).code).toBe(1);
    }
    await using _engine = spawnSimulator(argv);
    await untilReady(url);
  });

  test("slow_load_ms: later, but ready", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { slow_load_ms: 700 });
    const beganMs = performance.now();
    await using _engine = spawnSimulator(argv);
    await untilReady(url);
    expect(performance.now() - beganMs).toBeGreaterThan(700);
  });

  test("hang: connections without answers, and back", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path);
    await using _engine = spawnSimulator(argv);
    await untilReady(url);
    await setFaults(url, { hang: true });
    expect(await statusOf(`${url}/health`, 300)).toBe("silent");
    await setFaults(url, { hang: false });
    expect(await statusOf(`${url}/health`)).toBe(200);
  });

  test("die_after_tokens: SIGKILL in the middle of a stream", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { die_after_tokens: 10, step_delay_ms: 5 });
    await using engine = spawnSimulator(argv);
    await untilReady(url);
    let began = false;
    await expect(readStream(url, 50, () => (began = true))).rejects.toThrow();
    expect(began).toBe(true);
    expect(await engine.exited).toEqual({ code: null, signal: "SIGKILL" });
  });

  test("corrupt_after_restart: the first start is right, the second wrong", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { corrupt_after_restart: true });
    const texts: string[] = [];
    for (let start = 0; start < 2; start += 1) {
      await using _engine = spawnSimulator(argv);
      await untilReady(url);
      texts.push(await complete(url));
    }
    expect(texts[1]).not.toBe(texts[0]);
  });

  test("lie_ready: healthy, and every request fails", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { lie_ready: true });
    await using _engine = spawnSimulator(argv);
    await untilReady(url);
    expect(await complete(url)).toBe("status 500");
    await setFaults(url, { lie_ready: false });
    expect(await complete(url)).toMatch(/^( [a-z]{3}){8}$/);
  });

  test("slow_factor: the same work takes longer", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { speed: 50, slow_factor: 20, weightsBytes: 0, initMs: 0 });
    await using _engine = spawnSimulator(argv);
    await untilReady(url);
    const beganMs = performance.now();
    await complete(url, 50);
    // 50 steps of 8 ms at speed 50 are 8 ms; twenty times that are 160.
    expect(performance.now() - beganMs).toBeGreaterThan(150);
  });

  test("garbage_http: bytes that are no HTTP", async () => {
    await using folder = await temporaryFolder();
    const { argv, url, port } = await placeModel(folder.path);
    await using _engine = spawnSimulator(argv);
    await untilReady(url);
    await setFaults(url, { garbage_http: true });
    expect(await statusOf(`${url}/health`)).toBe("refused");
    const socket = connect(port, "127.0.0.1");
    socket.write("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    let answer = "";
    for await (const chunk of socket.setEncoding("latin1")) answer += String(chunk);
    expect(answer).not.toMatch(/^HTTP/);
    await setFaults(url, { garbage_http: false });
    await untilReady(url);
  });

  test("ignore_sigterm: only SIGKILL ends it", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { ignore_sigterm: true });
    await using engine = spawnSimulator(argv);
    await untilReady(url);
    engine.kill("SIGTERM");
    expect(await complete(url)).toMatch(/^( [a-z]{3}){8}$/);
    engine.kill("SIGKILL");
    expect(await engine.exited).toEqual({ code: null, signal: "SIGKILL" });
  });

  test("flood_logs: far more than anyone keeps", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { flood_logs: true });
    await using engine = spawnSimulator(argv);
    await untilReady(url);
    await expect.poll(() => engine.output().length).toBeGreaterThan(200_000);
  });

  test("faults from the environment win over the file, a named file over the model's", async () => {
    await using folder = await temporaryFolder();
    const { argv, url } = await placeModel(folder.path, { die_at_load: true });
    const named = join(folder.path, "other.json");
    await writeFile(named, "{}");
    const endings: (number | null)[] = [];
    for (const start of [
      () => spawnSimulator(argv, { PENSTOCK_SIM_FAULTS: '{"die_at_load":false}' }),
      () => spawnSimulator([...argv, "--sim-config", named]),
    ]) {
      await using engine = start();
      await untilReady(url);
      engine.kill("SIGTERM");
      endings.push((await engine.exited).code);
    }
    expect(endings).toEqual([0, 0]);
  });
});

describe("other engines", () => {
  test("llama-server says 503 while it loads, has slots, and metrics only when asked", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "m.gguf");
    await writeFile(path, "GGUF");
    await writeFile(`${path}.sim.json`, JSON.stringify({ slow_load_ms: 400 }));
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const flags = `--as llamacpp --alias m --port ${port} --host 127.0.0.1 -np 3 -c 3072 --metrics -ngl 99 -m`;
    await using _engine = spawnSimulator([...flags.split(" "), path]);
    await expect.poll(() => statusOf(`${url}/health`), { interval: 10 }).toBe(503);
    await untilReady(url);
    const slots = await (await fetch(`${url}/slots`)).json();
    expect(slots).toHaveLength(3);
    expect(slots).toMatchObject([{ n_ctx: 1_024, is_processing: false }, {}, {}]);
    expect(await complete(url)).toMatch(/^( [a-z]{3}){8}$/);
    expect(await (await fetch(`${url}/metrics`)).text()).toContain("llamacpp:tokens_predicted_total 8\n");
    const embeddings = await fetch(`${url}/v1/embeddings`, { method: "POST", body: '{"model":"m","input":"x"}' });
    expect(embeddings.status).toBe(501);
  });

  test("trtllm-serve has Prometheus metrics when its file asks for them", async () => {
    await using folder = await temporaryFolder();
    const config = join(folder.path, "config.yaml");
    await writeFile(config, "return_perf_metrics: true\nenable_iter_perf_stats: true\n");
    const pages: number[] = [];
    for (const more of [["--config", config], []]) {
      const port = await freePort();
      const url = `http://127.0.0.1:${port}`;
      const argv = [folder.path, "--host", "127.0.0.1", "--port", String(port), "--tp_size", "1", ...more];
      await using _engine = spawnSimulator(["--as", "trtllm", ...argv]);
      await untilReady(url);
      expect(await complete(url)).toMatch(/^( [a-z]{3}){8}$/);
      pages.push((await fetch(`${url}/prometheus/metrics`)).status);
      const stats = [await (await fetch(`${url}/metrics`)).json(), await (await fetch(`${url}/metrics`)).json()];
      expect(stats.map((list) => (list as unknown[]).length)).toEqual(more.length > 0 ? [1, 0] : [0, 0]); // JSON lists
    }
    expect(pages).toEqual([200, 404]);
  });

  test("Triton loads and unloads through both front ends", async () => {
    await using folder = await temporaryFolder();
    await mkdir(join(folder.path, "m", "1"), { recursive: true });
    await writeFile(
      join(folder.path, "m", "config.pbtxt"),
      'backend: "vllm"\nparameters { key: "REPORT_CUSTOM_METRICS" value { string_value: "yes" } }',
    );
    await writeFile(join(folder.path, "m", "1", "model.json"), JSON.stringify({ model: "/models/weights" }));
    const [api, admin] = [await freePort(), await freePort()];
    const url = `http://127.0.0.1:${api}`;
    const control = `http://127.0.0.1:${admin}`;
    const flags =
      `--as triton --tokenizer /models/weights --host 127.0.0.1 --openai-port ${api} --enable-kserve-frontends ` +
      `--kserve-http-port ${admin} --model-control-mode explicit --model-repository`;
    await using _engine = spawnSimulator([...flags.split(" "), folder.path]);
    await untilReady(control, "/v2/health/ready");
    await untilReady(url, "/health/ready");
    const post = async (target: string): Promise<number> => (await fetch(target, { method: "POST" })).status;
    expect(await complete(url)).toBe("status 400");
    expect(await post(`${control}/v2/repository/models/nobody/load`)).toBe(400);
    expect(await post(`${control}/v2/repository/models/m/load`)).toBe(200);
    const index = await fetch(`${control}/v2/repository/index`, { method: "POST" });
    expect(await index.json()).toEqual([{ name: "m", version: "1", state: "READY" }]);
    const text = await complete(url);
    expect(text).toMatch(/^( [a-z]{3}){8}$/);
    expect(await (await fetch(`${url}/metrics`)).text()).toContain(
      'vllm:generation_tokens_total{model="m",version="1"} 8\n',
    );
    expect(await post(`${url}/v1/models/m/unload`)).toBe(200);
    expect(await statusOf(`${control}/v2/models/m/ready`)).toBe(400);
    expect(await post(`${url}/v1/models/m/load`)).toBe(200);
    expect(await complete(url)).toBe(text);
  });
});
