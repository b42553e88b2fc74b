import type { NodeGroup } from "./nodes.ts";
import { readyAt, scalerOf } from "./replicas.ts";
import type { Scaler } from "./scaler.ts";
import type { SimulatedFleet } from "./scenario.ts";
import type { Steady, SteadyState } from "./steady.ts";
import { Tally, type Slo } from "./tally.ts";

/** Bounds of the gateway's queue. */
interface Hold {
  readonly maxRequests: number;
  readonly maxSeconds: number;
}

interface Parts {
  readonly group: NodeGroup;
  /** By the place of the kind of node in the pool. */
  readonly steady: readonly SteadyState[];
  readonly slo: Slo;
  readonly hold: Hold;
}

interface Cohort {
  readonly atSeconds: number;
  readonly variant: number;
  count: number;
}

/** One fleet in a simulation by bins: replicas are counted, requests are rates. */
export class BinFleet {
  readonly tally = new Tally();
  readonly #simulated: SimulatedFleet;
  readonly #parts: Parts;
  readonly #scaler: Scaler;
  /** Ready replicas by kind of node. */
  readonly #ready: number[];
  #starting: Cohort[] = [];
  #leaving: Cohort[] = [];
  /** Requests that wait because there is more to do than replicas do. */
  #backlog = 0;
  /** Requests a second, smoothed over the time that a request is here. */
  #rate = 0;
  #residence = 0;
  #replicaCount = 0;
  /** Requests at each load, whose distributions are added up at the end: all, and those that waited for no backlog. */
  readonly #seen = new Map<Steady, { all: number; inTime: number }>();

  constructor(simulated: SimulatedFleet, parts: Parts) {
    this.#simulated = simulated;
    this.#parts = parts;
    this.#scaler = scalerOf(simulated);
    this.#ready = parts.steady.map(() => 0);
    this.#start(Math.max(simulated.bounds.min, simulated.floorAt(0)), 0);
  }

  /** Replicas that are wanted still. */
  get #wanted(): number {
    return this.#replicaCount - count(this.#leaving);
  }

  /** A bin that begins at `now`: `requests` come in it, whose work is that of `work` ordinary ones. */
  pass(now: number, seconds: number, { requests, work }: { readonly requests: number; readonly work: number }): void {
    this.#arriveStarted(now);
    const [first] = this.#parts.steady;
    if (requests > 0 && first !== undefined) {
      if (this.#wanted === 0) this.#scaleTo(this.#scaler.activated(now), now);
      this.tally.requests += requests;
      this.tally.tooLong += requests * first.tooLongShare;
    }
    const possible = first === undefined ? 0 : 1 - first.tooLongShare;
    this.#serve(now, seconds, { requests: requests * possible, work: work * possible });
    this.tally.replicaSeconds += this.#replicaCount * seconds;
    const end = now + seconds;
    const demand = this.#rate * this.#residence + this.#backlog;
    // Below this nobody is there: rates fade and never quite end.
    this.#scaleTo(this.#scaler.desired(end, demand < 0.5 && requests === 0 ? 0 : demand, this.#wanted), end);
    for (const leaving of this.#leaving.filter(({ atSeconds }) => atSeconds <= end)) this.#release(leaving, end);
    this.#leaving = this.#leaving.filter(({ atSeconds }) => atSeconds > end);
  }

  /** The trace is over: distributions are added up. */
  finish(): void {
    for (const [{ ttft, tpot }, { all, inTime }] of this.#seen) {
      this.tally.ttft.addAll(ttft, inTime);
      this.tally.tpot.addAll(tpot, all);
    }
  }

  #serve(now: number, seconds: number, { requests, work }: { readonly requests: number; readonly work: number }): void {
    const reference = this.#parts.steady[mostOf(this.#ready)];
    if (reference === undefined || (requests === 0 && this.#backlog === 0 && this.#rate < 1e-9)) return;
    const perSecond = this.#capacity(this.#ready);
    const replicas = perSecond / reference.capacity;
    if (perSecond <= 0) {
      this.#waitForStart(now, requests);
      return;
    }
    const share = 1 - Math.exp(-seconds / Math.max(1e-3, Math.min(this.#residence, 2 * seconds)));
    this.#rate += (work / seconds - this.#rate) * share;
    const served = Math.min(requests + this.#backlog, perSecond * seconds * (requests === 0 ? 1 : requests / work));
    const backlog = Math.max(0, this.#backlog + requests - served);
    const delay = backlog < 0.5 && this.#backlog < 0.5 ? 0 : (this.#backlog + backlog) / 2 / perSecond;
    this.#backlog = backlog < 0.5 ? 0 : backlog;
    const utilisation = delay > 0 ? 1 : this.#rate / perSecond;
    const steady = reference.at(utilisation, replicas);
    this.#residence = steady.residenceSeconds;
    this.#count(requests, { steady, delay, reference });
  }

  /** Requests of this bin get their answers, in this bin or later. */
  #count(
    requests: number,
    { steady, delay, reference }: { readonly steady: Steady; readonly delay: number; readonly reference: SteadyState },
  ): void {
    const { tally } = this;
    tally.outputTokens += requests * reference.means.output;
    const seen = this.#seen.get(steady) ?? { all: 0, inTime: 0 };
    this.#seen.set(steady, seen);
    seen.all += requests;
    if (delay === 0) {
      seen.inTime += requests;
      tally.good += requests * steady.good;
    } else {
      const weight = requests / Math.max(1, steady.ttftPoints.length);
      for (const seconds of steady.ttftPoints) {
        tally.ttft.add(seconds + delay, weight);
        if (seconds + delay <= this.#parts.slo.ttftSeconds) tally.good += weight * steady.goodTpot;
      }
    }
    tally.served += requests;
  }

  /** No replica is ready: the gateway holds requests until one is, as many and as long as it may. */
  #waitForStart(now: number, requests: number): void {
    const { hold } = this.#parts;
    const waitSeconds = Math.min(...this.#starting.map(({ atSeconds }) => atSeconds)) - now;
    const kept = waitSeconds > hold.maxSeconds ? 0 : Math.min(requests, Math.max(0, hold.maxRequests - this.#backlog));
    this.tally.refused += requests - kept;
    this.#backlog += kept;
    if (kept === 0) return;
    const [reference] = this.#parts.steady;
    const steady = reference?.at(0.5, 1);
    if (reference === undefined || steady === undefined) return;
    this.#residence = steady.residenceSeconds;
    this.#count(kept, { steady, delay: waitSeconds, reference });
  }

  #capacity(replicas: readonly number[]): number {
    return replicas.reduce((sum, each, variant) => sum + each * (this.#parts.steady[variant]?.capacity ?? 0), 0);
  }

  #arriveStarted(now: number): void {
    if (this.#starting.length === 0) return;
    for (const { atSeconds, variant, count: some } of this.#starting) {
      if (atSeconds <= now) this.#ready[variant] = (this.#ready[variant] ?? 0) + some;
    }
    this.#starting = this.#starting.filter(({ atSeconds }) => atSeconds > now);
  }

  #scaleTo(wanted: number, now: number): void {
    const missing = wanted - this.#wanted;
    if (missing > 0) this.#start(missing, now);
    if (missing < 0) this.#stop(-missing, now);
  }

  #start(missing: number, now: number): void {
    const { group } = this.#parts;
    for (let started = 0; started < missing; started += 1) {
      const place = group.take(this.#simulated.fleet, now);
      if (place === null) {
        this.tally.blocked += 1;
        break;
      }
      const atSeconds = now === 0 ? 0 : readyAt(this.#simulated, place, now);
      if (now > 0) {
        this.tally.coldStarts += 1;
        if (place.isNewNode) this.tally.newNodeStarts += 1;
      }
      this.#replicaCount += 1;
      const last = this.#starting.at(-1);
      if (last?.atSeconds === atSeconds && last.variant === place.variant) last.count += 1;
      else this.#starting.push({ atSeconds, variant: place.variant, count: 1 });
    }
    this.tally.peakReplicas = Math.max(this.tally.peakReplicas, this.#replicaCount);
  }

  /** Those that start go first, then those on the last kinds of node; they leave when their requests are done. */
  #stop(surplus: number, now: number): void {
    let left = surplus;
    while (left > 0 && this.#starting.length > 0) {
      const last = this.#starting.at(-1);
      if (last === undefined) break;
      const here = Math.min(left, last.count);
      last.count -= here;
      left -= here;
      this.#release({ atSeconds: now, variant: last.variant, count: here }, now);
      if (last.count === 0) this.#starting.pop();
    }
    for (let variant = this.#ready.length - 1; variant >= 0 && left > 0; variant -= 1) {
      const here = Math.min(left, this.#ready[variant] ?? 0);
      if (here === 0) continue;
      this.#ready[variant] = (this.#ready[variant] ?? 0) - here;
      left -= here;
      const atSeconds = now + Math.min(this.#residence, this.#simulated.fleet.drainSeconds);
      this.#leaving.push({ atSeconds, variant, count: here });
    }
  }

  #release({ variant, count: some }: Cohort, now: number): void {
    for (let at = 0; at < some; at += 1) this.#parts.group.release(this.#simulated.fleet, variant, now);
    this.#replicaCount -= some;
  }
}

/** The kind of node that most replicas are on: its latencies stand for all. */
function mostOf(ready: readonly number[]): number {
  return Math.max(0, ready.indexOf(Math.max(...ready)));
}

function count(cohorts: readonly Cohort[]): number {
  let sum = 0;
  for (const { count: some } of cohorts) sum += some;
  return sum;
}
