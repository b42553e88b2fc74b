import { expect, test } from "vitest";
import type { Heartbeat, ModelReport } from "../../runtime/contracts/agent.ts";
import { guesses, secondsToReady } from "../../runtime/gateway/scheduling/estimate.ts";
import { place, type AgentSnapshot, type Residency, type Wanted } from "../../runtime/gateway/scheduling/place.ts";

const gib = 2 ** 30;

function report(model_id: string, about: Partial<ModelReport> = {}): ModelReport {
  return {
    model_id,
    cache_state: "READY",
    cache_level: "GPU_RESIDENT",
    reason: null,
    inference_endpoint_url: "http://127.0.0.1:1/infer/m",
    running: 0,
    idle_seconds: 100,
    size_bytes: 16 * gib,
    adapters: [],
    engine: null,
    progress: null,
    ...about,
    measured_ms: {
      download: null,
      load: null,
      sleep: null,
      wake: null,
      unload: null,
      adapter: null,
      ...about.measured_ms,
    },
  };
}

interface Loaded {
  readonly report: ModelReport;
  readonly gpus?: readonly number[];
  readonly memoryBytes?: number;
}

/** An agent with two GPUs of 80 GiB. */
function agent(
  name: string,
  models: readonly Loaded[] = [],
  about: { cached?: ReadonlyMap<string, number>; beat?: Partial<Heartbeat> } = {},
): AgentSnapshot {
  const gpus = [0, 1].map((index) => ({
    index,
    uuid: `GPU-${index}`,
    name: "H100",
    memory_total_bytes: 80 * gib,
    memory_used_bytes: 0,
    memory_reserved_bytes: models.reduce(
      (sum, each) => sum + (each.gpus?.includes(index) === true ? (each.memoryBytes ?? 0) : 0),
      0,
    ),
    utilization: 0,
    nvlink_peers: [],
  }));
  return {
    url: `http://${name}`,
    cached: about.cached ?? new Map(),
    beat: {
      agent_id: name,
      state: "IDLE",
      reason: null,
      gpus,
      memory: { total_bytes: 0, free_bytes: 0 },
      disk: { total_bytes: 0, free_bytes: 0, cache_bytes: 0, cache_budget_bytes: null },
      cache: { revision: "0", entries: null },
      engines: models.map((each) => ({
        model_id: each.report.model_id,
        kind: "vllm",
        version: null,
        pid: 1,
        gpus: [...(each.gpus ?? [])],
        gpu_memory_bytes: each.memoryBytes ?? 0,
        restarts: 0,
      })),
      models: models.map((each) => each.report),
      ...about.beat,
    },
  };
}

const wanted: Wanted = {
  id: "m",
  need: { count: 1, memory: { fraction: 0.9 }, nvlink: false, asleepBytes: 2 * gib },
  cpu: false,
  except: new Set(),
};
const residency: Residency = { minIdleSeconds: 30, pinned: new Set(), asleepBytes: () => 2 * gib };
const whole = 72 * gib;

test("a sleeping model is woken where it sleeps, rather than loaded elsewhere", () => {
  const asleep = report("m", {
    cache_state: "SLEEPING",
    cache_level: "DRAM_CACHED",
    measured_ms: { ...report("m").measured_ms, wake: 900 },
  });
  const { placement } = place(
    wanted,
    [agent("empty"), agent("asleep", [{ report: asleep, gpus: [0], memoryBytes: 2 * gib }])],
    residency,
  );
  expect(placement).toMatchObject({ agentUrl: "http://asleep", evictions: [], secondsToReady: 0.9 });
});

test("of two agents with room, the one that has the files is chosen", () => {
  const { placement } = place(wanted, [agent("a"), agent("b", [], { cached: new Map([["m", 16 * gib]]) })], residency);
  expect(placement).toMatchObject({ agentUrl: "http://b" });
  expect(placement?.why).toContain("NVME_CACHED");
});

test("an empty agent that must download is better than one that must evict a model which is in demand", () => {
  const busy = { report: report("hot", { idle_seconds: 31 }), gpus: [0], memoryBytes: whole };
  const busier = { report: report("hot2", { idle_seconds: 31 }), gpus: [1], memoryBytes: whole };
  const full = agent("full", [busy, busier], { cached: new Map([["m", 16 * gib]]) });
  const cannotSleep = { ...residency, asleepBytes: () => null };
  expect(place(wanted, [full, agent("empty")], cannotSleep).placement?.agentUrl).toBe("http://empty");
  // A wake later costs them less than the download costs this one.
  expect(place(wanted, [full, agent("empty")], residency).placement?.agentUrl).toBe("http://full");
  // With nowhere else to go the least recently used one makes room.
  expect(place(wanted, [full], residency).placement?.evictions).toEqual([{ modelId: "hot", to: "DRAM_CACHED" }]);
});

test.each([
  ["in use", { running: 1 }, {}],
  ["too fresh", { idle_seconds: 5 }, {}],
  ["pinned", {}, { pinned: new Set(["other"]) }],
] as const)("a model that is %s is never evicted", (_why, about, more) => {
  const taken = [0, 1].map((gpu) => ({ report: report("other", about), gpus: [gpu], memoryBytes: whole }));
  const { placement, refusal } = place(wanted, [agent("a", taken)], { ...residency, ...more });
  expect(placement).toBeNull();
  expect(refusal).toContain("1 GPU(s) with 90 % each");
});

test("an engine that cannot sleep goes to disk; one that sleeps already makes room only by going", () => {
  const asleep = {
    report: report("z", { cache_state: "SLEEPING", idle_seconds: 500 }),
    gpus: [0],
    memoryBytes: 20 * gib,
  };
  const other = { report: report("y", { running: 3 }), gpus: [1], memoryBytes: whole };
  expect(place(wanted, [agent("a", [asleep, other])], residency).placement?.evictions).toEqual([
    { modelId: "z", to: "NVME_CACHED" },
  ]);
  const awake = { ...asleep, report: report("z"), memoryBytes: whole };
  expect(
    place(wanted, [agent("a", [awake, other])], { ...residency, asleepBytes: () => null }).placement?.evictions,
  ).toEqual([{ modelId: "z", to: "NVME_CACHED" }]);
});

test("agents that drain or have just refused are passed over", () => {
  const draining = agent("a", [], { beat: { state: "DRAINING" } });
  expect(place({ ...wanted, except: new Set(["http://b"]) }, [draining, agent("b")], residency)).toMatchObject({
    placement: null,
    refusal: "no agent takes work now",
  });
});

test("without GPUs an engine goes where it can run on the CPU", () => {
  const laptop = agent("laptop", [], { beat: { gpus: [] } });
  expect(place({ ...wanted, cpu: true }, [laptop], residency).placement?.agentUrl).toBe("http://laptop");
  expect(place(wanted, [laptop], residency).placement).toBeNull();
});

test("a load under way is joined, with the time that it says is left", () => {
  const progress = {
    model_id: "m",
    phase: "download",
    bytes_done: 1,
    bytes_total: 2,
    bytes_per_second: 1,
    eta_seconds: 7,
  } as const;
  const loading = report("m", {
    cache_state: "DOWNLOADING",
    cache_level: "REMOTE",
    progress,
    measured_ms: { ...report("m").measured_ms, load: 5_000 },
  });
  const { placement } = place(wanted, [agent("idle"), agent("loading", [{ report: loading }])], residency);
  expect(placement).toMatchObject({ agentUrl: "http://loading", secondsToReady: 12 });
});

test("estimates use what was measured, and guesses where nothing was", () => {
  const nothing = { report: null, cachedBytes: null, sizeBytes: 10e9, downloadBytesPerSecond: null };
  expect(secondsToReady(nothing)).toBe(
    10e9 / guesses.downloadBytesPerSecond + guesses.startSeconds + 10e9 / guesses.readBytesPerSecond,
  );
  expect(secondsToReady({ ...nothing, downloadBytesPerSecond: 5e9 })).toBeLessThan(secondsToReady(nothing));
  expect(secondsToReady({ ...nothing, report: report("m") })).toBe(0);
  const measured = { ...report("m").measured_ms, download: 2_000, load: 3_000 };
  const remote = report("m", { cache_state: "UNLOADED", cache_level: "REMOTE", measured_ms: measured });
  expect(secondsToReady({ ...nothing, report: remote })).toBe(5);
});
