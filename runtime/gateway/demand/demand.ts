import type { Tallies } from "../stores/hot.ts";

/** How long an arrival counts towards the rate: as long as a burst takes to be more than chance. */
const rateMemoryMs = 60_000;
/** How much of the mean service time the latest request is. */
const newest = 0.05;
/** How often what this gateway has is told to the store, and how long it counts there without being told again. */
const publishIntervalMs = 1_000;
const publishedTtlMs = 5_000;

interface FleetDemand {
  open: number;
  /** Arrivals per ms as of `atMs`, each fading with `rateMemoryMs`. */
  rate: number;
  atMs: number;
  meanServiceMs: number | null;
  /** What the store last summed up over all gateways. */
  elsewhere: number;
}

/** A request that has not ended. */
export class OpenRequest implements Disposable {
  /** How long it was served, without the time that it waited for a model to load; null when it was not. */
  serviceMs: number | null = null;
  readonly #demand: FleetDemand;

  constructor(demand: FleetDemand) {
    this.#demand = demand;
  }

  [Symbol.dispose](): void {
    const { serviceMs } = this;
    const { meanServiceMs } = this.#demand;
    this.#demand.open -= 1;
    if (serviceMs === null) return;
    this.#demand.meanServiceMs =
      meanServiceMs === null ? serviceMs : meanServiceMs + newest * (serviceMs - meanServiceMs);
  }
}

/** What demand is made of. */
export interface DemandOptions {
  readonly tallies: Tallies;
  /** Names this gateway among those that share the store. */
  readonly gatewayId: string;
  readonly onError: (error: unknown) => void;
  readonly now?: () => number;
}

/**
 * Demand per fleet, in requests at once: those that are open here (queued, held or running), or, if that is more, what
 * Little's law says of the last minute (arrivals per second times seconds of service, without cold starts). So a fleet keeps
 * its size in the gap between two requests. Sums over gateways come from the shared store.
 */
export class Demand implements AsyncDisposable {
  readonly #fleets = new Map<string, FleetDemand>();
  readonly #options: DemandOptions;
  readonly #now: () => number;
  readonly #listeners = new Set<(fleet: string) => void>();
  readonly #timer: NodeJS.Timeout;
  #publishing: Promise<void> | null = null;

  constructor(options: DemandOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#timer = setInterval(() => this.#publish(), publishIntervalMs).unref();
  }

  /** A request for a model of `fleet` came; it is over when what comes back is disposed of. */
  open(fleet: string): OpenRequest {
    const demand = this.#of(fleet);
    demand.open += 1;
    demand.rate = this.#rate(demand) + 1 / rateMemoryMs;
    demand.atMs = this.#now();
    if (demand.open === 1) for (const listener of this.#listeners) listener(fleet);
    return new OpenRequest(demand);
  }

  /** This gateway's own. */
  here(fleet: string): number {
    const demand = this.#fleets.get(fleet);
    if (demand === undefined) return 0;
    return Math.max(demand.open, this.#rate(demand) * (demand.meanServiceMs ?? 0));
  }

  /** Over all gateways: what the others said last, and this one as it is now. */
  total(fleet: string): number {
    return this.here(fleet) + (this.#fleets.get(fleet)?.elsewhere ?? 0);
  }

  /** Calls `listener` at once when the first request of a fleet comes that had none. Answers how to end that. */
  onFirst(listener: (fleet: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Fleets that are watched from now on, whether a request came or not. */
  watch(fleet: string): void {
    this.#of(fleet);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#publishing;
  }

  #of(fleet: string): FleetDemand {
    let demand = this.#fleets.get(fleet);
    if (demand === undefined) {
      demand = { open: 0, rate: 0, atMs: this.#now(), meanServiceMs: null, elsewhere: 0 };
      this.#fleets.set(fleet, demand);
    }
    return demand;
  }

  #rate({ rate, atMs }: FleetDemand): number {
    return rate * Math.exp((atMs - this.#now()) / rateMemoryMs);
  }

  #publish(): void {
    // A store that hangs must not collect a pile of calls.
    this.#publishing ??= this.#tell()
      .catch(this.#options.onError)
      .finally(() => {
        this.#publishing = null;
      });
  }

  async #tell(): Promise<void> {
    const { tallies, gatewayId } = this.#options;
    for (const [fleet, demand] of this.#fleets) {
      const own = this.here(fleet);
      const sum = await tallies.tally(`demand:${fleet}`, { holder: gatewayId, count: own }, publishedTtlMs);
      demand.elsewhere = Math.max(0, sum - own);
    }
  }
}
