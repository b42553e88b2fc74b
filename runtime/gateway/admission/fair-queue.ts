import { PenstockError } from "../../contracts/errors.ts";
import type { Leaving } from "../../lib/leaving.ts";
import { DrainRate } from "./drain-rate.ts";
import { clientClosed } from "./refusal.ts";

/** Bounds of what waits, over all models. */
export interface QueueLimits {
  readonly maxRequests: number;
  readonly maxBytes: number;
  readonly maxRequestsPerTenant: number;
  readonly maxBytesPerTenant: number;
  /** A request that waited so long is refused, unless its own deadline is earlier. */
  readonly maxWaitMs: number;
}

/** A request that asks for a place on a model. */
export interface PlaceRequest {
  readonly model: string;
  readonly tenant: { readonly id: string; readonly priority: number; readonly weight: number };
  /** Size of the body, which is kept meanwhile. */
  readonly bytes: number;
  /** Work in any unit, the same for all: tenants of the same priority share it by their weights. */
  readonly cost: number;
  readonly deadlineMs?: number | undefined;
  readonly client: Leaving;
}

interface Waiter {
  readonly request: PlaceRequest;
  readonly start: () => void;
}

/** What one tenant has waiting for one model. */
interface Flow {
  /** First come, first served. */
  readonly waiters: Set<Waiter>;
  /** Virtual time at which its next request starts. */
  startTag: number;
}

interface ModelQueue {
  running: number;
  virtualTime: number;
  readonly flows: Map<string, Flow>;
  /** Where tenants that were served go on, until nothing waits: to have one request waiting at a time wins nothing. */
  readonly finishTags: Map<string, number>;
  readonly drain: DrainRate;
}

interface Held {
  requests: number;
  bytes: number;
}

/** What a client is told to wait when nothing was measured yet. */
const defaultRetryMs = 5_000;
const maxRetrySeconds = 3_600;

/**
 * Who goes next when a model has no room: start-time fair queueing (Goyal, Vin and Cheng, 1996) over tenants. A higher
 * priority always goes first; tenants of the same priority share by weight, so one with a long queue delays others by
 * no more than the request that it has running.
 */
export class FairQueue {
  readonly #capacity: (model: string) => number;
  readonly #limits: QueueLimits;
  readonly #models = new Map<string, ModelQueue>();
  readonly #held = new Map<string, Held>();
  readonly #total: Held = { requests: 0, bytes: 0 };

  /** `capacity` says how many requests a model may have running; call `refill` when its answer grows. */
  constructor(capacity: (model: string) => number, limits: QueueLimits) {
    this.#capacity = capacity;
    this.#limits = limits;
  }

  /** Requests that wait and their bytes, in all. */
  get waiting(): Readonly<Held> {
    return this.#total;
  }

  /** Requests that run on a model, and that wait for it. */
  of(model: string): { readonly running: number; readonly waiting: number } {
    const queue = this.#models.get(model);
    return { running: queue?.running ?? 0, waiting: queue === undefined ? 0 : countWaiting(queue) };
  }

  /**
   * Takes a place at once if there is one, else waits for it. Dispose gives it back. Throws `queue_full` when the tenant
   * has too much waiting, `overloaded` when all have or the wait is too long, and `client_closed`.
   */
  enter(request: PlaceRequest): Disposable | Promise<Disposable> {
    const queue = this.#queueOf(request.model);
    if (this.#hasPlace(request, queue)) {
      queue.running += 1;
      return new Place(this, request.model, queue);
    }
    this.#checkRoom(request, queue);
    return this.#wait(request, queue);
  }

  /** Throws what `enter` would throw now, before anything is done for the request. */
  check(request: PlaceRequest): void {
    const queue = this.#queueOf(request.model);
    if (!this.#hasPlace(request, queue)) this.#checkRoom(request, queue);
  }

  /** How long a request would wait for a place, as measured: 0 with one free, `Infinity` when it would be refused. */
  waitMs(request: Pick<PlaceRequest, "model" | "tenant" | "bytes">): number {
    const queue = this.#queueOf(request.model);
    if (this.#hasPlace(request, queue)) return 0;
    return this.#isFull(request) === null ? this.#turnMs(queue, request.tenant.id) : Infinity;
  }

  /** Starts what waits for a model while there is room. */
  refill(model: string): void {
    const queue = this.#models.get(model);
    if (queue === undefined) return;
    while (queue.flows.size > 0 && queue.running < this.#capacity(model)) {
      const [tenant, flow, waiter] = nextOf(queue);
      // Not back: a lower priority may have waited since long.
      queue.virtualTime = Math.max(queue.virtualTime, flow.startTag);
      flow.startTag += waiter.request.cost / waiter.request.tenant.weight;
      queue.finishTags.set(tenant, flow.startTag);
      this.#leave(waiter, { tenant, flow, queue });
      queue.running += 1;
      queue.drain.left(performance.now());
      waiter.start();
    }
    if (queue.flows.size > 0) return;
    queue.virtualTime = 0;
    queue.finishTags.clear();
  }

  async #wait(request: PlaceRequest, queue: ModelQueue): Promise<Disposable> {
    if (request.client.aborted) throw clientClosed();
    const { promise, resolve: start, reject } = Promise.withResolvers<void>();
    const waiter: Waiter = { request, start };
    const place = this.#line(waiter, queue);
    const waitMs = Math.min(this.#limits.maxWaitMs, request.deadlineMs ?? Infinity);
    const giveUp = (error: PenstockError) => {
      this.#leave(waiter, place);
      reject(error);
    };
    const onLeft = () => giveUp(clientClosed());
    const timer = setTimeout(() => {
      const message = `No room for ${request.model} within ${Math.round(waitMs / 1_000)} s; try again later.`;
      giveUp(this.#refusal("overloaded", message, { queue, tenant: request.tenant.id }));
    }, waitMs);
    request.client.addEventListener("abort", onLeft, { once: true });
    // In case that the capacity grew and nobody said so.
    this.refill(request.model);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      request.client.removeEventListener("abort", onLeft);
    }
    return new Place(this, request.model, queue);
  }

  #hasPlace({ model }: Pick<PlaceRequest, "model">, { flows, running }: ModelQueue): boolean {
    return flows.size === 0 && running < this.#capacity(model);
  }

  #line(waiter: Waiter, queue: ModelQueue): { tenant: string; flow: Flow; queue: ModelQueue } {
    const { tenant, bytes } = waiter.request;
    let flow = queue.flows.get(tenant.id);
    if (flow === undefined) {
      const startTag = Math.max(queue.virtualTime, queue.finishTags.get(tenant.id) ?? 0);
      flow = { waiters: new Set(), startTag };
      queue.flows.set(tenant.id, flow);
    }
    flow.waiters.add(waiter);
    const held = this.#heldBy(tenant.id);
    this.#held.set(tenant.id, held);
    for (const each of [held, this.#total]) {
      each.requests += 1;
      each.bytes += bytes;
    }
    return { tenant: tenant.id, flow, queue };
  }

  #leave(waiter: Waiter, { tenant, flow, queue }: { tenant: string; flow: Flow; queue: ModelQueue }): void {
    if (!flow.waiters.delete(waiter)) return;
    if (flow.waiters.size === 0) queue.flows.delete(tenant);
    const held = this.#heldBy(tenant);
    for (const each of [held, this.#total]) {
      each.requests -= 1;
      each.bytes -= waiter.request.bytes;
    }
    if (held.requests === 0) this.#held.delete(tenant);
  }

  #checkRoom(request: PlaceRequest, queue: ModelQueue): void {
    const code = this.#isFull(request);
    if (code === null) return;
    const message =
      code === "queue_full"
        ? `Too many of your requests wait for ${request.model}; send fewer at once, or try again later.`
        : "The gateway has too much waiting; try again later.";
    throw this.#refusal(code, message, { queue, tenant: request.tenant.id });
  }

  /** Why nothing more may wait; null when it may. */
  #isFull({ tenant, bytes }: Pick<PlaceRequest, "tenant" | "bytes">): "queue_full" | "overloaded" | null {
    const limits = this.#limits;
    const held = this.#heldBy(tenant.id);
    if (held.requests >= limits.maxRequestsPerTenant || held.bytes + bytes > limits.maxBytesPerTenant) {
      return "queue_full";
    }
    const isFull = this.#total.requests >= limits.maxRequests || this.#total.bytes + bytes > limits.maxBytes;
    return isFull ? "overloaded" : null;
  }

  #refusal(
    code: "queue_full" | "overloaded",
    message: string,
    { queue, tenant }: { queue: ModelQueue; tenant: string },
  ): PenstockError {
    const waitSeconds = Math.ceil(this.#turnMs(queue, tenant) / 1_000);
    return new PenstockError(code, message, {
      retryAfterSeconds: Math.min(maxRetrySeconds, Math.max(1, waitSeconds)),
    });
  }

  /** What the tenant's share of the measured rate gives: its own requests and as many of each other's. */
  #turnMs(queue: ModelQueue, tenant: string): number {
    const own = queue.flows.get(tenant)?.waiters.size ?? 0;
    const ahead = 1 + Math.min(countWaiting(queue), own * queue.flows.size);
    return queue.drain.untilLeftMs(ahead, performance.now()) ?? defaultRetryMs;
  }

  #heldBy(tenant: string): Held {
    return this.#held.get(tenant) ?? { requests: 0, bytes: 0 };
  }

  #queueOf(model: string): ModelQueue {
    const known = this.#models.get(model);
    if (known !== undefined) return known;
    const queue = { running: 0, virtualTime: 0, flows: new Map(), finishTags: new Map(), drain: new DrainRate() };
    this.#models.set(model, queue);
    return queue;
  }
}

/** A place of a model, until it is given back. */
class Place implements Disposable {
  readonly #owner: FairQueue;
  readonly #model: string;
  readonly #queue: ModelQueue;
  #released = false;

  constructor(owner: FairQueue, model: string, queue: ModelQueue) {
    this.#owner = owner;
    this.#model = model;
    this.#queue = queue;
  }

  [Symbol.dispose](): void {
    if (this.#released) return;
    this.#released = true;
    this.#queue.running -= 1;
    this.#owner.refill(this.#model);
  }
}

/** The oldest request of the flow that is first: by priority, then by virtual time. */
function nextOf({ flows }: ModelQueue): readonly [tenant: string, flow: Flow, waiter: Waiter] {
  let best: readonly [string, Flow, Waiter] | undefined;
  for (const [tenant, flow] of flows) {
    const [waiter] = flow.waiters;
    if (waiter !== undefined && (best === undefined || precedes(flow, waiter, best))) best = [tenant, flow, waiter];
  }
  if (best === undefined) throw new Error("nothing waits");
  return best;
}

function precedes(flow: Flow, waiter: Waiter, [, other, first]: readonly [string, Flow, Waiter]): boolean {
  const difference = waiter.request.tenant.priority - first.request.tenant.priority;
  return difference === 0 ? flow.startTag < other.startTag : difference > 0;
}

function countWaiting({ flows }: ModelQueue): number {
  let count = 0;
  for (const { waiters } of flows.values()) count += waiters.size;
  return count;
}
