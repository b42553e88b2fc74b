import { z } from "zod";
import type { Logger } from "../../lib/log.ts";
import { jsonOf, MetadataClient } from "./metadata.ts";
import { metadataUrl, type CloudNotices, type ReclaimNotice, type ReclaimOptions } from "./notices.ts";
import { deliverOnce, poll } from "./poll.ts";

/** Without it every request is refused, so that none gets here by a redirect. */
const headers = { metadata: "true" };

const eventsPath = "/metadata/scheduledevents?api-version=2020-07-01";
const computePath = "/metadata/instance/compute?api-version=2021-02-01&format=json";

/** The first request for events switches them on for the machine, which takes up to two minutes (Azure's manual). */
const firstTimeoutMs = 130_000;

/** Events that end the machine, and those that it comes back from with empty memory. `Freeze` is a pause of seconds. */
const endings: ReadonlySet<string> = new Set(["Preempt", "Terminate"]);
const maintenances: ReadonlySet<string> = new Set(["Reboot", "Redeploy"]);

const compute = z.object({ name: z.string().min(1).max(256) });
const eventList = z.object({ Events: z.array(z.unknown()) });
const scheduledEvent = z.object({
  EventId: z.string().regex(/^[\w-]{1,64}$/),
  EventType: z.string().max(64),
  /** Names of the machines that the event is about: those of the whole scale set see it. */
  Resources: z.array(z.string()),
  /** Such as `Mon, 19 Sep 2016 18:29:47 GMT`; blank once the event has started. */
  NotBefore: z
    .string()
    .regex(/^(|\w{3}, \d{1,2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT)$/)
    .refine((text) => text === "" || !Number.isNaN(Date.parse(text)))
    .nullish()
    .transform((text) => text ?? ""),
  EventStatus: z.string().max(64),
});
type ScheduledEvent = z.infer<typeof scheduledEvent>;

/** Azure's Scheduled Events: spot evictions (30 s ahead or more) and deletions of this machine. */
export class AzureNotices implements CloudNotices {
  readonly #client: MetadataClient;
  readonly #log: Logger;
  readonly #intervalMs: number;
  readonly #timeoutMs: number;
  readonly #maintenance: boolean;
  /** This machine's name in lower case, once it is known. */
  #name: string | null = null;
  #firstLook = true;

  constructor(options: ReclaimOptions) {
    this.#client = new MetadataClient(options.metadataUrl ?? metadataUrl);
    this.#log = options.log.child({ cloud: "azure" });
    this.#intervalMs = options.intervalMs ?? 2_000;
    this.#timeoutMs = options.timeoutMs ?? 2_000;
    this.#maintenance = options.maintenance ?? false;
  }

  async answers(signal: AbortSignal): Promise<boolean> {
    return (await this.#ownName(signal).catch(() => null)) !== null;
  }

  async watch(onNotice: (notice: ReclaimNotice) => void, signal: AbortSignal): Promise<void> {
    const deliver = deliverOnce(onNotice);
    const look = async (): Promise<string | null> => {
      this.#name ??= await this.#ownName(signal);
      if (this.#name === null) return "The answer about this machine has no name.";
      const { events, problem } = await this.#events(signal);
      if (events === null) return problem;
      for (const event of events) if (this.#concernsUs(event)) deliver(event.EventId, this.#notice(event));
      return problem;
    };
    await poll(look, { intervalMs: this.#intervalMs, signal, log: this.#log });
  }

  /** The events that can be read, and what is wrong with the others; no events when there is no list. */
  async #events(signal: AbortSignal): Promise<{ events: ScheduledEvent[] | null; problem: string | null }> {
    const timeoutMs = this.#firstLook ? Math.max(firstTimeoutMs, this.#timeoutMs) : this.#timeoutMs;
    const answer = await this.#client.send({ path: eventsPath, headers, timeoutMs, signal });
    const { data } = eventList.safeParse(answer.status === 200 ? jsonOf(answer) : undefined);
    if (data === undefined) {
      return { events: null, problem: `The answer about scheduled events (status ${answer.status}) is no list.` };
    }
    this.#firstLook = false;
    const events = data.Events.flatMap((each) => scheduledEvent.safeParse(each).data ?? []);
    const problem = events.length < data.Events.length ? "Some scheduled events cannot be read." : null;
    return { events, problem };
  }

  #concernsUs({ EventType, Resources }: ScheduledEvent): boolean {
    if (!endings.has(EventType) && !(this.#maintenance && maintenances.has(EventType))) return false;
    return Resources.some((resource) => resource.toLowerCase() === this.#name);
  }

  #notice({ EventId, EventType, EventStatus, NotBefore, Resources }: ScheduledEvent): ReclaimNotice {
    let acknowledged: Promise<void> | null = null;
    return {
      cloud: "azure",
      kind: "reclaim",
      deadline: NotBefore === "" ? new Date() : new Date(NotBefore),
      detail: `${EventType} (${EventStatus}) ${NotBefore === "" ? "now" : `not before ${NotBefore}`}`,
      acknowledge: () => {
        // An acknowledgement starts the event for all machines in it, and the others may not be drained.
        acknowledged ??= Resources.length > 1 ? Promise.resolve() : this.#start(EventId);
        return acknowledged;
      },
    };
  }

  async #start(eventId: string): Promise<void> {
    try {
      const body = JSON.stringify({ StartRequests: [{ EventId: eventId }] });
      const sent = { ...headers, "content-type": "application/json" };
      const { status } = await this.#client.send({
        path: eventsPath,
        method: "POST",
        headers: sent,
        body,
        timeoutMs: this.#timeoutMs,
      });
      if (status !== 200) this.#log.warn({ status }, "the event was not started ahead of its time");
    } catch (thrown) {
      this.#log.warn({ err: thrown }, "the event was not started ahead of its time");
    }
  }

  /** The name of this machine, as events have it; null when the answer has none. */
  async #ownName(signal: AbortSignal): Promise<string | null> {
    const answer = await this.#client.send({ path: computePath, headers, timeoutMs: this.#timeoutMs, signal });
    const { data } = compute.safeParse(answer.status === 200 ? jsonOf(answer) : undefined);
    return data?.name.toLowerCase() ?? null;
  }
}
