import { ReplicaAccount, type Ticket } from "./account.ts";
import { choose, type Policy, type ReplicaScore, type RouteRequest } from "./policy.ts";
import { prefillWork } from "./prefill-work.ts";
import { blockTokens } from "./prefix-hash.ts";
import { PrefixIndex } from "./prefix-index.ts";
import { RateMeter } from "./rates.ts";

/** A replica and its number in the prefix index. */
interface Member {
  readonly account: ReplicaAccount;
  readonly owner: number;
}

/** A request on its way. Ending it takes what it never prefilled out of the books and of the prefix index. */
export interface Route extends Ticket {
  readonly replica: string;
  /** Prompt tokens that the replica is thought to hold. */
  readonly cachedTokens: number;
  readonly explanation?: readonly ReplicaScore[];
}

/** What one choice may not or should do. */
export interface RouteOptions {
  readonly explain?: boolean;
  /** Replicas that have refused this request. */
  readonly exclude?: ReadonlySet<string>;
}

/** What the router works with. */
export interface RouterOptions {
  readonly policy: Policy;
  readonly index?: PrefixIndex;
  /** Numbers in [0, 1). */
  readonly random?: () => number;
}

/** Weight of a request's tokens in the running means below: about the last 50 requests. */
const keep = 0.98;

/** Routes the requests of one model: policy, prefix index and books put together. It has no clock; time is given. */
export class Router {
  policy: Policy;
  readonly #index: PrefixIndex;
  readonly #random: () => number;
  readonly #members: Member[] = [];
  readonly #freeOwners: number[] = [];
  readonly #rates = new RateMeter();
  #sequence = 0;
  #requests = 0;
  #promptTokens = 0;
  #reusedTokens = 0;
  #work = 0;

  constructor({ policy, index = new PrefixIndex(), random = Math.random }: RouterOptions) {
    this.policy = policy;
    this.#index = index;
    this.#random = random;
  }

  /** Books of a replica, to tell what heartbeats say, or undefined. */
  account(id: string): ReplicaAccount | undefined {
    return this.#members.find((member) => member.account.id === id)?.account;
  }

  /** A replica is there. It is taken for as fast as the others are. */
  add(id: string, options: { readonly kvTokens?: number } = {}): ReplicaAccount {
    const account = new ReplicaAccount(id, { ...options, fleet: this.#rates });
    const owner = this.#freeOwners.pop() ?? this.#members.length;
    this.#index.add(owner, account.kvTokens);
    this.#members.push({ account, owner });
    return account;
  }

  /** A replica is gone for good. Its routes may still end. */
  remove(id: string): void {
    const at = this.#members.findIndex((member) => member.account.id === id);
    const member = this.#members[at];
    if (member === undefined) return;
    this.#members.splice(at, 1);
    this.#index.remove(member.owner);
    this.#freeOwners.push(member.owner);
  }

  /** An engine has told how large its cache is; what it is thought to hold is forgotten. */
  resize(id: string, kvTokens: number): void {
    const member = this.#members.find(({ account }) => account.id === id);
    if (member === undefined || member.account.kvTokens === kvTokens) return;
    member.account.kvTokens = kvTokens;
    this.#index.add(member.owner, kvTokens);
  }

  /** A replica's cache is empty: it restarted or slept. */
  forget(id: string): void {
    const member = this.#members.find(({ account }) => account.id === id);
    if (member !== undefined) this.#index.forget(member.owner);
  }

  /** Chooses a replica and books the request on it. Null when none is ready. */
  route(request: RouteRequest, nowMs: number, { explain = false, exclude }: RouteOptions = {}): Route | null {
    const members =
      exclude === undefined ? this.#members : this.#members.filter(({ account }) => !exclude.has(account.id));
    const replicas = members.map(({ account }) => account);
    const cachedTokens = this.#look(request, members, nowMs);
    const context = {
      sequence: this.#sequence,
      random: [this.#random(), this.#random()] as const,
      cachedTokens,
      reuse: this.#promptTokens === 0 ? 0 : this.#reusedTokens / this.#promptTokens,
      meanWork: this.#requests === 0 ? request.promptTokens : this.#work / this.#requests,
    };
    const decision = choose(this.policy, { request, replicas, context, explain });
    const member = members[decision?.index ?? -1];
    if (decision === null || member === undefined) return null;
    const cached = cachedTokens[decision.index] ?? 0;
    this.#sequence += 1;
    const most = cachedTokens.reduce((high, tokens) => Math.max(high, tokens), 0);
    this.#learn(request.promptTokens, cached, most);
    const explanation = decision.explanation === undefined ? {} : { explanation: decision.explanation };
    return { ...this.#book(request, member, { cached, nowMs }), ...explanation };
  }

  #look(request: RouteRequest, members: readonly Member[], nowMs: number): Uint32Array {
    const cachedTokens = new Uint32Array(members.length);
    let at = 0;
    for (const { account, owner } of members) {
      account.at(nowMs);
      account.cacheFill = this.#index.fill(owner);
      const blocks = this.#index.match(request.prefix, owner, nowMs);
      cachedTokens[at] = Math.min(blocks * blockTokens, Math.max(0, request.promptTokens - 1));
      at += 1;
    }
    return cachedTokens;
  }

  #learn(promptTokens: number, cachedTokens: number, mostCached: number): void {
    this.#requests = this.#requests * keep + 1;
    this.#promptTokens = this.#promptTokens * keep + promptTokens;
    this.#reusedTokens = this.#reusedTokens * keep + mostCached;
    this.#work = this.#work * keep + prefillWork(promptTokens - cachedTokens, cachedTokens);
  }

  #book(
    { prefix, promptTokens }: RouteRequest,
    { account, owner }: Member,
    { cached, nowMs }: { readonly cached: number; readonly nowMs: number },
  ): Route {
    const ticket = account.begin({ promptTokens, uncachedTokens: promptTokens - cached }, nowMs);
    const record = this.#index.record(prefix, owner, nowMs);
    let prefilled = false;
    return {
      replica: account.id,
      cachedTokens: cached,
      firstByte(at) {
        prefilled = true;
        ticket.firstByte(at);
      },
      end: (at) => {
        ticket.end(at);
        if (!prefilled) this.#index.revoke(prefix.subarray(Math.floor(cached / blockTokens)), owner, record);
        prefilled = true;
      },
    };
  }
}
