import type { IncomingHttpHeaders } from "node:http";
import type { RelayTap } from "../../lib/relay.ts";
import type { Exchange } from "../exchange.ts";
import type { Deployment } from "../registry/catalog.ts";
import type { ModelRegistry, Replica } from "../registry/registry.ts";
import { defaultAdapterLoadMs } from "../routing/account.ts";
import { policies, type PolicyName } from "../routing/index.ts";
import { Router, type Route } from "../routing/router.ts";

/** Bounds of what agents may claim: far above what is true anywhere. */
const maxLoadMs = 600_000;
const maxKvTokens = 1e10;
const maxRequests = 1e6;

/** A replica that was chosen, with its place in the router's books until it is disposed of. */
export interface Routed extends Disposable {
  readonly replica: Replica;
  /** Tells the books of the first byte, in front of another tap. */
  readonly tap: RelayTap;
  /** Why this one: for people. */
  readonly explanation: Route["explanation"];
}

interface Known {
  readonly router: Router;
  /** The list of replicas that the router has heard of last. */
  seen: readonly Replica[];
}

/** Chooses replicas: one router per model, which keeps books of what this gateway has routed. */
export class Routing {
  readonly #registry: ModelRegistry;
  readonly #routers = new Map<string, Known>();
  #policy: PolicyName;

  constructor(registry: ModelRegistry, policy: PolicyName) {
    this.#registry = registry;
    this.#policy = policy;
  }

  get policy(): PolicyName {
    return this.#policy;
  }

  set policy(policy: PolicyName) {
    this.#policy = policy;
    for (const { router } of this.#routers.values()) router.policy = policies[policy];
  }

  /** A replica that takes requests and is not in `tried`, unless all of them are; null when there is none at all. */
  choose(exchange: Exchange, tried: ReadonlySet<string>, explain: boolean): Routed | null {
    const { model, adapter, request, principal } = exchange;
    const replicas = this.#registry.replicas(model);
    const { router } = this.#routerOf(model, replicas);
    const asked = {
      promptTokens: request.promptTokens,
      // Adapters share no cache with each other, and tenants shall not learn of each other from its speed.
      prefix: request.prefix(`${principal.tenant.id}:${adapter ?? ""}`),
      sessionKey: request.sessionKey,
      adapter: adapter ?? null,
    };
    const now = performance.now();
    const allEqual = tried.size === 0 || replicas.every(({ agentUrl }) => tried.has(agentUrl));
    const route = router.route(asked, now, allEqual ? { explain } : { explain, exclude: tried });
    const replica = replicas.find(({ agentUrl }) => agentUrl === route?.replica);
    if (route === null || replica === undefined) {
      route?.end(now);
      return null;
    }
    return new ChosenReplica(replica, route, exchange.account.tap);
  }

  /** A replica for the same request once more: another one whose queue is not longer; null when there is none. */
  second(exchange: Exchange, first: Routed): Routed | null {
    const { model } = exchange;
    const { agentUrl } = first.replica;
    if (this.#registry.replicas(model).every((replica) => replica.agentUrl === agentUrl)) return null;
    const second = this.choose(exchange, new Set([agentUrl]), false);
    if (second === null) return null;
    // Both have the request in their books now.
    const isBusier = this.#queueOf(model, second) > this.#queueOf(model, first);
    if (!isBusier && second.replica.agentUrl !== agentUrl) return second;
    second[Symbol.dispose]();
    return null;
  }

  /** Requests that wait for their first byte there: ours, and those that its engine counts beside. */
  #queueOf(model: Deployment, { replica }: Routed): number {
    const account = this.#routers.get(model.name)?.router.account(replica.agentUrl);
    return account === undefined ? Infinity : account.prefilling + account.foreignWaiting;
  }

  #routerOf(model: Deployment, replicas: readonly Replica[]): Known {
    let known = this.#routers.get(model.name);
    if (known === undefined) {
      known = { router: new Router({ policy: policies[this.#policy] }), seen: [] };
      this.#routers.set(model.name, known);
    }
    if (known.seen !== replicas) this.#tell(known, replicas);
    return known;
  }

  /** Tells a router which replicas there are, and what their heartbeats said. */
  #tell(known: Known, replicas: readonly Replica[]): void {
    const { router, seen } = known;
    const now = performance.now();
    const urls = new Set(replicas.map(({ agentUrl }) => agentUrl));
    for (const { agentUrl } of seen) if (!urls.has(agentUrl)) router.remove(agentUrl);
    for (const { agentUrl, report } of replicas) {
      const account = router.account(agentUrl) ?? router.add(agentUrl);
      account.adapters = new Set(report.adapters.filter(({ state }) => state === "READY").map(({ name }) => name));
      account.adapterLoadMs = within(report.measured_ms.adapter, maxLoadMs) ?? defaultAdapterLoadMs;
      const { engine } = report;
      if (engine === null) continue;
      const kvTokens = within(engine.kv_tokens, maxKvTokens) ?? 0;
      if (kvTokens > 0) router.resize(agentUrl, kvTokens);
      const [waiting, running] = [within(engine.waiting, maxRequests), within(engine.running, maxRequests)];
      account.measured({ waiting, running, kvUsage: within(engine.kv_usage, 1) }, now);
    }
    known.seen = replicas;
  }
}

/** Whatever an agent claims, a cost stays a number that others can be compared with. */
function within(claimed: number | null, most: number): number | null {
  return claimed === null ? null : Math.min(most, Math.max(0, claimed));
}

/** A replica that was chosen, and the tap that tells of its first byte. */
class ChosenReplica implements Routed, RelayTap {
  readonly replica: Replica;
  readonly #route: Route;
  readonly #inner: RelayTap;
  #began = false;

  constructor(replica: Replica, route: Route, inner: RelayTap) {
    this.replica = replica;
    this.#route = route;
    this.#inner = inner;
  }

  get tap(): RelayTap {
    return this;
  }

  get explanation(): Route["explanation"] {
    return this.#route.explanation;
  }

  begin(status: number, headers: IncomingHttpHeaders): void {
    this.#inner.begin(status, headers);
  }

  write(chunk: Buffer): Buffer | null {
    if (!this.#began) this.#route.firstByte(performance.now());
    this.#began = true;
    return this.#inner.write(chunk);
  }

  end(): Buffer | null {
    return this.#inner.end();
  }

  [Symbol.dispose](): void {
    this.#route.end(performance.now());
  }
}
