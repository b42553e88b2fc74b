import { setTimeout as delay } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { reclaimNotices, type ReclaimSource } from "../../runtime/agent/reclaim/index.ts";
import type { ReclaimNotice, ReclaimOptions } from "../../runtime/agent/reclaim/notices.ts";
import { deliverOnce } from "../../runtime/agent/reclaim/poll.ts";
import { createLog, type Logger } from "../../runtime/lib/log.ts";
import { AwsMetadata, AzureMetadata, type AzureEvent } from "../fakes/instance-metadata.ts";

const interruption = "/latest/meta-data/spot/instance-action";
const rebalance = "/latest/meta-data/events/recommendations/rebalance";
const events = "/metadata/scheduledevents";

/** Notices of `source`, collected until the test ends. */
function watch(source: ReclaimSource, metadataUrl: string, options: Partial<ReclaimOptions> = {}) {
  const warn = vi.fn<Logger["warn"]>();
  const info = vi.fn<Logger["info"]>();
  /** One line for every look that got no answer. */
  const debug = vi.fn<Logger["debug"]>();
  const log = createLog("test", "silent");
  // The clouds log through a child.
  Object.assign(log, { warn, info, debug, child: () => log });
  const notices: ReclaimNotice[] = [];
  const stopping = new AbortController();
  const ended = reclaimNotices(source, { log, metadataUrl, intervalMs: 10, ...options }).watch(
    (notice) => notices.push(notice),
    stopping.signal,
  );
  return {
    notices,
    warn,
    info,
    debug,
    async [Symbol.asyncDispose]() {
      stopping.abort();
      await ended;
    },
  };
}

/** Waits until the service has been looked at `looks` more times. */
async function looks(service: AwsMetadata | AzureMetadata, path: string, more = 5): Promise<void> {
  const before = service.to(path).length;
  await expect.poll(() => service.to(path).length).toBeGreaterThanOrEqual(before + more);
}

test("aws: without a notice nothing is said, by anybody", async () => {
  await using service = await new AwsMetadata().up();
  await using watching = watch("aws", service.url);
  await looks(service, interruption);
  await looks(service, rebalance);
  expect(watching.notices).toEqual([]);
  expect(watching.warn).not.toHaveBeenCalled();
  expect(service.requests.map(({ status }) => status).filter((status) => status !== 404)).toEqual([200]);
});

test("aws: an interruption is delivered once, with its deadline, and another time is another notice", async () => {
  await using service = await new AwsMetadata().up();
  await using watching = watch("aws", service.url);
  service.documents.set(interruption, `{"action": "terminate", "time": "2026-11-21T08:22:00Z"}`);
  await looks(service, interruption);
  expect(watching.notices).toMatchObject([
    {
      cloud: "aws",
      kind: "reclaim",
      deadline: new Date("2026-11-21T08:22:00Z"),
      detail: expect.stringContaining("terminate"),
    },
  ]);
  await watching.notices[0]?.acknowledge();
  service.documents.set(interruption, `{"action": "terminate", "time": "2026-11-21T08:25:00Z"}`);
  await looks(service, interruption);
  expect(watching.notices.slice(1)).toMatchObject([{ deadline: new Date("2026-11-21T08:25:00Z") }]);
  expect(new Set(service.requests.map(({ method }) => method))).toEqual(new Set(["PUT", "GET"]));
});

test("aws: a rebalance recommendation is delivered once, without a deadline", async () => {
  await using service = await new AwsMetadata().up();
  await using watching = watch("aws", service.url);
  service.documents.set(rebalance, `{"noticeTime": "2026-11-21T08:22:00Z"}`);
  await looks(service, rebalance);
  expect(watching.notices).toMatchObject([{ cloud: "aws", kind: "rebalance", deadline: null }]);
});

test("aws: one token serves many requests, and a new one is fetched when it has ended", async () => {
  await using service = await new AwsMetadata().up();
  await using watching = watch("aws", service.url);
  await looks(service, interruption);
  expect(service.to("/latest/api/token", "PUT")).toHaveLength(1);
  service.expireTokens();
  service.documents.set(interruption, `{"action": "stop", "time": "2026-11-21T08:22:00Z"}`);
  await expect.poll(() => watching.notices.length).toBe(1);
  expect(service.requests.filter(({ status }) => status === 401)).toHaveLength(1);
  expect(service.to("/latest/api/token", "PUT")).toHaveLength(2);
  expect(watching.warn).not.toHaveBeenCalled();
});

test.for([
  ["prose", 200, "<html>captive portal</html>"],
  ["no time", 200, `{"action": "terminate"}`],
  ["a time that is none", 200, `{"action": "terminate", "time": "soon"}`],
  ["an action that is prose", 200, `{"action": "rm -rf /; \\u001b[31m", "time": "2026-11-21T08:22:00Z"}`],
  ["a list", 200, "[]"],
  ["a redirect", 302, ""],
  ["a failure", 500, `{"action": "terminate", "time": "2026-11-21T08:22:00Z"}`],
  ["far too much", 200, `{"action": "terminate", "time": "2026-11-21T08:22:00Z", "x": "${"x".repeat(300_000)}"}`],
] as const)("aws: %s is no notice, is logged once, and the next good answer counts", async ([, status, body]) => {
  await using service = await new AwsMetadata().up();
  service.overrides.set(interruption, { status, body });
  await using watching = watch("aws", service.url);
  await looks(service, interruption);
  expect(watching.notices).toEqual([]);
  expect(watching.warn).toHaveBeenCalledTimes(1);
  service.overrides.clear();
  service.documents.set(interruption, `{"action": "terminate", "time": "2026-11-21T08:22:00Z"}`);
  await expect.poll(() => watching.notices.length).toBe(1);
  await expect.poll(() => watching.info.mock.calls.length).toBe(1);
});

test.for([
  ["two lines", "abcdefghijklmnopqrst\r\nx-evil: 1"],
  ["nothing", ""],
  ["a page", "<html>Please log in to the network of this hotel</html>"],
] as const)("aws: a token of %s is not used", async ([, body]) => {
  await using service = await new AwsMetadata().up();
  service.overrides.set("/latest/api/token", { status: 200, body });
  await using watching = watch("aws", service.url);
  await expect.poll(() => service.to("/latest/api/token", "PUT").length).toBeGreaterThan(3);
  expect(service.to("/latest/meta-data")).toEqual([]);
  expect(watching.warn).toHaveBeenCalledTimes(1);
});

const clouds = [
  ["aws", () => new AwsMetadata(), interruption],
  ["azure", () => new AzureMetadata(), events],
] as const;

test.for(clouds)(
  "%s: a service that is down is logged once and read again when it is back",
  async ([cloud, make, path]) => {
    await using service = await make().up();
    await using watching = watch(cloud, service.url, { timeoutMs: 30_000 });
    await looks(service, path, 1);
    await service.down();
    await expect.poll(() => watching.debug.mock.calls.length).toBeGreaterThan(3);
    expect(watching.warn).toHaveBeenCalledTimes(1);
    await service.up();
    await looks(service, path);
    await expect.poll(() => watching.info.mock.calls.length).toBe(1);
    expect(watching.notices).toEqual([]);
  },
);

test.for(clouds)(
  "%s: a service that hangs is given up on, logged once and asked again",
  async ([cloud, make, path]) => {
    await using service = await make().up();
    await using watching = watch(cloud, service.url, { timeoutMs: 200 });
    await looks(service, path, 1);
    service.overrides.set(path, "hang");
    const hanging = (): number => service.requests.filter(({ status }) => status === 0).length;
    await expect.poll(hanging).toBeGreaterThan(1);
    const warnings = watching.warn.mock.calls.length;
    expect(warnings).toBeGreaterThan(0);
    await expect.poll(hanging).toBeGreaterThan(4);
    expect(watching.warn).toHaveBeenCalledTimes(warnings);
    service.overrides.clear();
    await expect.poll(() => watching.info.mock.calls.length).toBeGreaterThan(0);
  },
);

test.for(["aws", "azure"] as const)("%s: stopping does not wait for an answer", async (cloud) => {
  await using service = await (cloud === "aws" ? new AwsMetadata() : new AzureMetadata()).up();
  service.overrides.set("/", "hang");
  const started = performance.now();
  {
    await using _watching = watch(cloud, service.url, { timeoutMs: 60_000 });
    await expect.poll(() => service.requests.length).toBe(1);
  }
  expect(performance.now() - started).toBeLessThan(10_000);
});

test("the notices that are remembered are few, the newest, and each is delivered once", () => {
  const notice: ReclaimNotice = {
    cloud: "azure",
    kind: "rebalance",
    deadline: null,
    detail: "",
    acknowledge: () => Promise.resolve(),
  };
  let count = 0;
  const deliver = deliverOnce(() => (count += 1));
  for (let id = 0; id < 1_000; id++) deliver(`event ${id}`, notice);
  for (let id = 901; id < 1_000; id++) deliver(`event ${id}`, notice);
  expect(count).toBe(1_000);
  deliver("event 0", notice);
  expect(count).toBe(1_001);
});

function eviction(change: Partial<AzureEvent> = {}): AzureEvent {
  return {
    EventId: "602d9444-d2cd-49c7-8624-8643e7171297",
    EventType: "Preempt",
    ResourceType: "VirtualMachine",
    Resources: ["aks-gpu-35419134-vmss_1"],
    EventStatus: "Scheduled",
    NotBefore: "Sat, 21 Nov 2026 18:29:47 GMT",
    Description: "",
    EventSource: "Platform",
    DurationInSeconds: -1,
    ...change,
  };
}

test("azure: an eviction is delivered once, acknowledged once and only when asked to, and not again when it starts", async () => {
  await using service = await new AzureMetadata().up();
  await using watching = watch("azure", service.url);
  await looks(service, events);
  expect(watching.notices).toEqual([]);
  service.events = [eviction()];
  await looks(service, events);
  expect(watching.notices).toMatchObject([
    {
      cloud: "azure",
      kind: "reclaim",
      deadline: new Date("2026-11-21T18:29:47Z"),
      detail: expect.stringContaining("Preempt"),
    },
  ]);
  expect(service.to(events, "POST")).toEqual([]);
  await watching.notices[0]?.acknowledge();
  await watching.notices[0]?.acknowledge();
  expect(service.to(events, "POST")).toMatchObject([
    { status: 200, body: `{"StartRequests":[{"EventId":"602d9444-d2cd-49c7-8624-8643e7171297"}]}` },
  ]);
  expect(service.events).toMatchObject([{ EventStatus: "Started" }]);
  await looks(service, events);
  expect(watching.notices).toHaveLength(1);
  expect(watching.warn).not.toHaveBeenCalled();
  expect(new Set(service.requests.map(({ status }) => status))).toEqual(new Set([200]));
});

test.for([
  ["for another machine", { Resources: ["aks-gpu-35419134-vmss_11"] }, 0],
  ["for nobody", { Resources: [] }, 0],
  ["that pauses the machine", { EventType: "Freeze" }, 0],
  ["of a reboot", { EventType: "Reboot" }, 0],
  ["of a deletion", { EventType: "Terminate" }, 1],
  ["that names the machine in capitals", { Resources: ["AKS-GPU-35419134-VMSS_1"] }, 1],
  ["for this machine among others", { Resources: ["aks-gpu-35419134-vmss_0", "aks-gpu-35419134-vmss_1"] }, 1],
] as const)("azure: an event %s counts or not", async ([, change, count]) => {
  await using service = await new AzureMetadata().up();
  service.events = [eviction(change)];
  await using watching = watch("azure", service.url);
  await looks(service, events);
  expect(watching.notices).toHaveLength(count);
  expect(watching.warn).not.toHaveBeenCalled();
});

test("azure: reboots and moves to another host count when that is asked for", async () => {
  await using service = await new AzureMetadata().up();
  service.events = [
    eviction({ EventId: "a-reboot", EventType: "Reboot", NotBefore: "", EventStatus: "Started" }),
    eviction({ EventId: "a-move", EventType: "Redeploy" }),
    eviction({ EventId: "a-pause", EventType: "Freeze" }),
  ];
  const before = Date.now();
  await using watching = watch("azure", service.url, { maintenance: true });
  await looks(service, events);
  expect(watching.notices.map(({ detail }) => detail.split(" ")[0])).toEqual(["Reboot", "Redeploy"]);
  // What has started has no time any more: its deadline is now.
  expect(watching.notices[0]?.deadline?.getTime()).toBeGreaterThanOrEqual(before);
  expect(watching.notices[0]?.deadline?.getTime()).toBeLessThanOrEqual(Date.now());
});

test("azure: an event of several machines is not started for the others", async () => {
  await using service = await new AzureMetadata().up();
  service.events = [eviction({ Resources: ["aks-gpu-35419134-vmss_1", "aks-gpu-35419134-vmss_2"] })];
  await using watching = watch("azure", service.url);
  await expect.poll(() => watching.notices.length).toBe(1);
  await watching.notices[0]?.acknowledge();
  expect(service.to(events, "POST")).toEqual([]);
});

test.for([
  ["the service is gone", (service: AzureMetadata): Promise<void> => service.down()],
  ["the event is over", async (service: AzureMetadata): Promise<void> => void (service.events = [])],
] as const)("azure: an acknowledgement that fails as %s is logged and hurts nobody", async ([, change]) => {
  await using service = await new AzureMetadata().up();
  service.name = "GPU-VM";
  service.events = [eviction({ Resources: ["gpu-vm"] })];
  await using watching = watch("azure", service.url);
  await expect.poll(() => watching.notices.length).toBe(1);
  await change(service);
  await watching.notices[0]?.acknowledge();
  expect(watching.warn.mock.calls.map((call) => call.at(-1))).toContain("the event was not started ahead of its time");
});

test("azure: events that cannot be read are logged once and do not hide those that can", async () => {
  await using service = await new AzureMetadata().up();
  const broken: readonly unknown[] = [
    null,
    { EventId: "x" },
    eviction({ EventId: `"}],"x":[{"` }),
    eviction({ EventId: "no-time", NotBefore: "soon" }),
    eviction({ EventId: "no-such-time", NotBefore: "Xxx, 99 Yyy 2026 99:99:99 GMT" }),
  ];
  const body = JSON.stringify({ DocumentIncarnation: 2, Events: [...broken, eviction()] });
  service.overrides.set(events, { status: 200, body });
  await using watching = watch("azure", service.url);
  await looks(service, events);
  expect(watching.notices).toMatchObject([{ detail: expect.stringContaining("Preempt") }]);
  expect(watching.warn).toHaveBeenCalledTimes(1);
});

test.for([
  ["auto", () => new AwsMetadata(), "aws", interruption],
  ["auto", () => new AzureMetadata(), "azure", events],
] as const)("%s: the cloud that answers is found and listened to", async ([source, make, cloud, path]) => {
  await using service = await make().up();
  if (service instanceof AwsMetadata) service.documents.set(path, `{"action": "stop", "time": "2026-11-21T08:22:00Z"}`);
  else service.events = [eviction()];
  await using watching = watch(source, service.url);
  await expect.poll(() => watching.notices).toMatchObject([{ cloud, kind: "reclaim" }]);
  expect(watching.info.mock.calls[0]?.[0]).toEqual({ cloud });
  expect(watching.warn).not.toHaveBeenCalled();
});

test("auto: on a machine of no cloud, or behind a network that answers anything, there are no notices and no questions", async () => {
  await using service = await new AwsMetadata().up();
  service.overrides.set("/", { status: 200, body: "<html>Welcome</html>" });
  {
    await using watching = watch("auto", service.url);
    await expect.poll(() => watching.info.mock.calls[0]?.[0]).toEqual({ cloud: "none" });
    await delay(100);
    expect(service.requests).toHaveLength(2);
  }
  await service.down();
  await using watching = watch("auto", service.url);
  await expect.poll(() => watching.info.mock.calls[0]?.[0]).toEqual({ cloud: "none" });
  expect(watching.notices).toEqual([]);
});

test("none: nobody is asked, and stopping works before and after the start", async () => {
  await using service = await new AwsMetadata().up();
  {
    await using _watching = watch("none", service.url);
    await delay(50);
  }
  const log = createLog("test", "silent");
  await reclaimNotices("none", { log }).watch(() => undefined, AbortSignal.abort());
  expect(service.requests).toEqual([]);
});
