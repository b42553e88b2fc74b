import { expect, test } from "vitest";
import { AwsMetadata, AzureMetadata } from "../fakes/instance-metadata.ts";
import { loadOf, simAgent, simModel, type SimAgent } from "./sim-agent.ts";

/** A stream of about a second that runs; resolves with its text. */
async function stream(sim: SimAgent): Promise<{ text: Promise<string> }> {
  const request = loadOf("m", await simModel(sim.folder, "m", { step_delay_ms: 20 }));
  await sim.post("/load_model", request);
  const answer = sim.post("/infer/m/v1/completions", { model: "m", prompt: "x", max_tokens: 50, stream: true });
  await expect.poll(async () => (await sim.model("m")).running).toBe(1);
  return { text: answer.then(({ body }) => String(body)) };
}

test("a drain takes nothing new, lets the stream end, and then stops the engines", async () => {
  await using sim = await simAgent();
  const { text } = await stream(sim);
  const drained = sim.post("/drain");
  await expect.poll(async () => (await sim.beat()).state).toBe("DRAINING");
  expect((await sim.ask("m")).body).toMatchObject({ error: { code: "draining" } });
  expect((await sim.get("/ready")).status).toBe(503);
  expect(await text).toContain("[DONE]");
  expect((await drained).body).toEqual({ status: "drained", running: 0 });
  expect(await sim.beat()).toMatchObject({ engines: [], reason: "Asked to drain." });
});

test("a drain stops at its deadline, whatever runs", async () => {
  // Less than the engine would take to end its stream by itself.
  await using sim = await simAgent({ stopTimeoutMs: 50 });
  const { text } = await stream(sim);
  expect((await sim.post("/drain", { deadline_seconds: 0.2 })).body).toEqual({ status: "busy", running: 1 });
  expect(await text).toContain("event: error");
  expect((await sim.beat()).engines).toEqual([]);
});

test("AWS takes the machine back: the agent drains within the notice", async () => {
  await using metadata = await new AwsMetadata().up();
  await using sim = await simAgent({ reclaim: { source: "aws", metadataUrl: metadata.url, intervalMs: 20 } });
  const { text } = await stream(sim);
  const time = new Date(Date.now() + 120_000).toISOString().replace(/\.\d+Z$/, "Z");
  metadata.documents.set("/latest/meta-data/spot/instance-action", JSON.stringify({ action: "terminate", time }));
  await expect.poll(async () => (await sim.beat()).state).toBe("DRAINING");
  expect((await sim.beat()).reason).toContain(time.slice(0, 16));
  expect(await text).toContain("[DONE]");
  await expect.poll(async () => (await sim.beat()).engines).toEqual([]);
});

test("Azure takes the machine back: the event is acknowledged once the agent is drained", async () => {
  await using metadata = await new AzureMetadata().up();
  await using sim = await simAgent({ reclaim: { source: "azure", metadataUrl: metadata.url, intervalMs: 20 } });
  const { text } = await stream(sim);
  metadata.events = [
    {
      EventId: "C7061BAC-AFDC-4513-B24B-AA5F13A16123",
      EventType: "Preempt",
      ResourceType: "VirtualMachine",
      Resources: [metadata.name],
      EventStatus: "Scheduled",
      NotBefore: new Date(Date.now() + 30_000).toUTCString(),
      Description: "",
      EventSource: "Platform",
      DurationInSeconds: -1,
    },
  ];
  await expect.poll(async () => (await sim.beat()).state).toBe("DRAINING");
  expect(metadata.to("/metadata/scheduledevents", "POST")).toEqual([]);
  expect(await text).toContain("[DONE]");
  await expect.poll(() => metadata.to("/metadata/scheduledevents", "POST")).toHaveLength(1);
});
