import { Engine, type EngineEvents, type Work } from "./engine.ts";
import { overhead } from "./engine-model.ts";
import type { NodeGroup, Place } from "./nodes.ts";
import type { Random } from "./random.ts";
import { ReplicaSet, scalerOf, type Replica } from "./replicas.ts";
import type { Scaler } from "./scaler.ts";
import type { Scenario, SimulatedFleet } from "./scenario.ts";
import { Tally } from "./tally.ts";

/** Replicas that are looked at for a request; of more, so many at random. */
const lookedAt = { oneModel: 8, severalModels: 16 } as const;

/** A model leaves for another one only after so long without requests (the gateway's scheduling). */
const minIdleMs = 30_000;

/** How soon the gateway looks again whether a model that is wanted can be loaded. */
const lookSeconds = 1;

/** What a model was asked for counts less by so much with each poll. */
const fading = 0.97;

interface Shared {
  readonly scenario: Scenario;
  readonly group: NodeGroup;
  readonly random: Random;
  /** What each model is asked for of all requests of the trace, in any unit. */
  readonly demand: readonly number[];
  /** `ready` is to be called at that time. */
  readonly onStart: (readyAtSeconds: number) => void;
}

/** One fleet in a simulation of single requests: the gateway's queue for it, its replicas, its autoscaler. */
export class FleetRun {
  readonly tally = new Tally();
  readonly #simulated: SimulatedFleet;
  readonly #shared: Shared;
  readonly #set: ReplicaSet;
  readonly #scaler: Scaler;
  /** Requests that wait for a replica, the first first. */
  #held: Work[] = [];
  /** What each model was asked for lately. */
  readonly #asked: number[];
  #triesAgain = false;
  /** Replicas that take requests, until something changes. */
  #open: readonly Replica[] | null = null;

  constructor(simulated: SimulatedFleet, shared: Shared) {
    this.#simulated = simulated;
    this.#shared = shared;
    this.#scaler = scalerOf(simulated);
    this.#asked = simulated.fleet.models.map((_, model) => shared.demand[model] ?? 0);
    const make = (place: Place, at: number): Replica => this.#replica(place, at);
    this.#set = new ReplicaSet(simulated, shared.group, { tally: this.tally, make });
    this.#set.begin();
  }

  /** A request comes. */
  arrive(work: Work, now: number): void {
    this.tally.requests += 1;
    const { contextTokens } = this.#simulated.fleet;
    const tokens = work.inputTokens + work.outputTokens;
    if (tokens > Math.min(contextTokens, this.#kvTokens(work.model))) {
      this.tally.tooLong += 1;
      return;
    }
    this.#asked[work.model] = (this.#asked[work.model] ?? 0) + 1;
    if (this.#set.wanted === 0) this.#scale(this.#scaler.activated(now), now);
    if (this.#route(work, now)) return;
    this.#hold(work);
    this.#tryAgain(now);
  }

  /** A replica may be ready, or free for another model. */
  ready(now: number): void {
    this.#open = null;
    this.#triesAgain = false;
    const waiting = this.#held;
    this.#held = [];
    for (const work of waiting) if (!this.#route(work, now)) this.#held.push(work);
    this.#tryAgain(now);
  }

  /** The autoscaler looks. */
  poll(now: number): void {
    const { maxSeconds } = this.#shared.scenario.plan.gateway.config.hold;
    const kept = this.#held.filter(({ arrivedMs }) => now - arrivedMs / 1_000 <= maxSeconds);
    this.tally.refused += this.#held.length - kept.length;
    this.#held = kept;
    for (const [model, asked] of this.#asked.entries()) this.#asked[model] = asked * fading;
    const demand = this.#set.outstanding(now) + this.#held.length;
    this.#scale(this.#scaler.desired(now, demand, this.#set.wanted), now);
    this.#set.settle(now);
    this.#open = null;
  }

  /** The trace is over: what is there is counted, and requests that are open get their answers. */
  finish(now: number): void {
    this.#set.pass(now);
    const last = Math.max(now, ...this.#set.replicas.map(({ readyAt }) => readyAt));
    if (this.#held.length > 0) this.ready(last);
    this.tally.refused += this.#held.length;
    for (const { slots } of this.#set.replicas) for (const slot of slots) slot.advance(Infinity);
  }

  #scale(count: number, now: number): void {
    for (const at of this.#set.scaleTo(count, now)) this.#shared.onStart(at);
    this.#open = null;
  }

  /** Of several models one may have to wait until another is idle. */
  #tryAgain(now: number): void {
    const hasOpen = this.#set.replicas.some(({ readyAt, drainingSince }) => drainingSince === null && readyAt <= now);
    if (this.#triesAgain || this.#held.length === 0 || !hasOpen) return;
    this.#triesAgain = true;
    this.#shared.onStart(now + lookSeconds);
  }

  #hold(work: Work): void {
    if (this.#held.length >= this.#shared.scenario.plan.gateway.config.hold.maxRequests) this.tally.refused += 1;
    else this.#held.push(work);
  }

  /** To the replica where it waits for the least time. */
  #route(work: Work, now: number): boolean {
    this.#open ??= this.#set.replicas.filter(
      ({ readyAt, drainingSince }) => drainingSince === null && readyAt <= now + 1e-9,
    );
    const open = this.#open;
    const { random } = this.#shared;
    const most = this.#simulated.fleet.models.length > 1 ? lookedAt.severalModels : lookedAt.oneModel;
    const all = open.length <= most;
    let best: Engine | null = null;
    let least = Infinity;
    for (let looked = 0; looked < Math.min(most, open.length); looked += 1) {
      const replica = open[all ? looked : Math.floor(random.uniform() * open.length)];
      for (const slot of replica?.slots ?? []) {
        slot.advance(now * 1_000);
        const wait = slot.waitMs(work.model, minIdleMs);
        if (wait >= least) continue;
        least = wait;
        best = slot;
      }
    }
    best?.submit(work, now * 1_000);
    return best !== null;
  }

  #replica(place: Place, readyAt: number): Replica {
    const { fleet, engines } = this.#simulated;
    const models = engines.flatMap((each) => each[place.variant]?.model ?? []);
    const known = new Set<number>();
    const slots = Array.from({ length: fleet.residentModels }, () => {
      const first = this.#firstModel();
      known.add(first);
      const start = {
        atMs: readyAt * 1_000,
        model: first,
        cachedShare: this.#shared.scenario.settings.cachedShare,
      };
      return new Engine(models, this.#events(known), start);
    });
    return { place, readyAt, slots, drainingSince: null, known };
  }

  /** A replica begins with the model that is asked for the most, by engine that has it. */
  #firstModel(): number {
    const engines = this.#asked.map(() => 1);
    for (const { slots } of this.#set.replicas) {
      for (const { model } of slots) if (model !== null) engines[model] = (engines[model] ?? 1) + 1;
    }
    const need = this.#asked.map((asked, model) => asked / (engines[model] ?? 1));
    return Math.max(0, need.indexOf(Math.max(...need)));
  }

  #events(known: Set<number>): EngineEvents {
    const { fleet } = this.#simulated;
    const { downloadSeconds, loadSeconds, wakeSeconds } = fleet.transitions;
    const wakeMs = (wakeSeconds ?? loadSeconds) * 1_000;
    const { sleep_after_seconds: sleepAfter = null, unload_after_seconds: unloadAfter = null } = fleet.idle ?? {};
    return {
      onEnd: (work, firstMs, endMs) => this.#ended(work, firstMs, endMs),
      switchMs: (model, { from, idleMs }) => {
        if (from !== model) return known.has(model) ? wakeMs : (downloadSeconds + loadSeconds) * 1_000;
        if (unloadAfter !== null && idleMs > unloadAfter * 1_000) return loadSeconds * 1_000;
        return sleepAfter !== null && idleMs > sleepAfter * 1_000 ? wakeMs : 0;
      },
      onSwitch: (model) => {
        if (known.has(model)) this.tally.modelWakes += 1;
        else this.tally.modelLoads += 1;
        known.add(model);
      },
    };
  }

  #ended({ arrivedMs, outputTokens }: Work, firstMs: number, endMs: number): void {
    const { ttftSeconds, tpotSeconds } = this.#shared.scenario.settings.slo;
    const ttft = (firstMs + overhead.outputTokenMs - arrivedMs) / 1_000;
    const tpot = outputTokens > 1 ? (endMs - firstMs) / (outputTokens - 1) / 1_000 : 0;
    this.tally.served += 1;
    this.tally.outputTokens += outputTokens;
    this.tally.ttft.add(ttft);
    if (outputTokens > 1) this.tally.tpot.add(tpot);
    if (ttft <= ttftSeconds && tpot <= tpotSeconds) this.tally.good += 1;
  }

  #kvTokens(model: number): number {
    return Math.min(...(this.#simulated.engines[model] ?? []).map(({ model: { kvTokens } }) => kvTokens));
  }
}
