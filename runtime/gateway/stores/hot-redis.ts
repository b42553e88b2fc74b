import { createHash } from "node:crypto";
import { Cluster, Redis } from "ioredis";
import { z } from "zod";
import {
  healthy,
  maxValueBytes,
  settledMemoryMs,
  type Charge,
  type HotStore,
  type LeaseAnswer,
  type Reservation,
  type ReserveAnswer,
} from "./hot.ts";
import { acquireScript, releaseScript, renewScript, reserveScript, settleScript, tallyScript } from "./hot-scripts.ts";
import { periodEnd, periodStart } from "./period.ts";

/** Where a Redis (from version 6 on) or Valkey server is, and how it is used. */
export interface RedisOptions {
  /** `redis://` or, with TLS, `rediss://`; user and password inside. */
  readonly url: string;
  /** The server at `url` is one of a cluster. */
  readonly cluster?: boolean;
  /** In front of every key. */
  readonly prefix?: string;
  /** A command without an answer by then has failed. */
  readonly timeoutMs?: number;
}

const defaultTimeoutMs = 100;
const connectTimeoutMs = 2_000;
const maxReconnectMs = 1_000;

/** Answer of `reserveScript`. */
const reserveReply = z.tuple([z.number(), z.number(), z.number()]).rest(z.number());
const leaseReply = z.tuple([z.string(), z.number()]);

/**
 * The hot store of many gateways. Every limit is one atomic script on keys of one hash slot, by the server's clock. Give
 * the server the eviction policy `volatile-ttl`: budgets carry the longest time to live, so values go first.
 */
export class RedisHotStore implements HotStore {
  readonly health = healthy;
  readonly #client: Redis | Cluster;
  readonly #prefix: string;
  readonly #timeoutMs: number;

  private constructor(client: Redis | Cluster, options: RedisOptions) {
    this.#client = client;
    this.#prefix = options.prefix ?? "penstock:";
    this.#timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
  }

  /**
   * Connects, and goes on connecting in the background when that takes longer than a moment: until then each method
   * rejects at once. `onError` hears why the connection failed.
   */
  static async open(options: RedisOptions, onError: (error: unknown) => void): Promise<RedisHotStore> {
    const client = options.cluster === true ? clusterOf(options) : singleOf(options);
    client.on("error", onError);
    const { promise: ready, resolve } = Promise.withResolvers<void>();
    client.once("ready", resolve);
    const timer = setTimeout(resolve, connectTimeoutMs);
    await ready;
    clearTimeout(timer);
    return new RedisHotStore(client, options);
  }

  async reserve(reservation: Reservation, ttlMs: number): Promise<ReserveAnswer> {
    const { account, id, charges } = reservation;
    const args = [id, ttlMs, ...charges.flatMap(chargeArguments)];
    const reply = await this.#run(scripts.reserve, this.#accountKeys(account), args);
    const [granted, refusedBy, retryAfterMs, ...pairs] = reserveReply.parse(reply);
    const readings = charges.map(({ meter: { limit } }, at) => ({
      limit,
      remaining: pairs[2 * at] ?? 0,
      resetMs: pairs[2 * at + 1] ?? 0,
    }));
    if (granted === 1) return { granted: true, readings };
    return { granted: false, readings, refusedBy, retryAfterMs: retryAfterMs < 0 ? null : retryAfterMs };
  }

  async settle({ account, id, charges }: Reservation, amounts: readonly number[]): Promise<void> {
    const used = charges.map((_, at) => amounts[at] ?? 0);
    const args = [id, settledMemoryMs, charges.length, ...used, ...charges.flatMap(chargeArguments)];
    await this.#run(scripts.settle, this.#accountKeys(account), args);
  }

  async renew(reservations: readonly Pick<Reservation, "account" | "id">[], ttlMs: number): Promise<void> {
    const byAccount = Map.groupBy(reservations, ({ account }) => account);
    const runs = [...byAccount].flatMap(([account, all]) =>
      // Lua cannot take more than a few thousand arguments at once.
      chunks(all, 1_000).map((part) =>
        this.#run(scripts.renew, [this.#accountKey(account, "open")], [ttlMs, ...part.map(({ id }) => id)]),
      ),
    );
    await Promise.all(runs);
  }

  async acquire(key: string, holder: string, ttlMs: number): Promise<LeaseAnswer> {
    const reply = await this.#run(scripts.acquire, [`${this.#prefix}lease:${key}`], [holder, ttlMs]);
    const [owner, leftMs] = leaseReply.parse(reply);
    return { held: owner === holder, holder: owner, expiresMs: Math.max(0, leftMs) };
  }

  async release(key: string, holder: string): Promise<void> {
    await this.#run(scripts.release, [`${this.#prefix}lease:${key}`], [holder]);
  }

  async get(key: string): Promise<Buffer | undefined> {
    return (await this.#answer(this.#client.getBuffer(`${this.#prefix}value:${key}`))) ?? undefined;
  }

  async set(key: string, value: Uint8Array, ttlMs: number): Promise<boolean> {
    if (value.length > maxValueBytes) {
      await this.delete(key);
      return false;
    }
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    await this.#answer(this.#client.set(`${this.#prefix}value:${key}`, bytes, "PX", Math.max(1, Math.round(ttlMs))));
    return true;
  }

  /** The server outlives every gateway. */
  async remember(key: string, value: Uint8Array, ttlMs: number): Promise<boolean> {
    return await this.set(key, value, ttlMs);
  }

  async delete(key: string): Promise<void> {
    await this.#answer(this.#client.del(`${this.#prefix}value:${key}`));
  }

  async bump(key: string): Promise<number> {
    return await this.#answer(this.#client.incr(`${this.#prefix}version:${key}`));
  }

  async version(key: string): Promise<number> {
    return Number((await this.#answer(this.#client.get(`${this.#prefix}version:${key}`))) ?? 0);
  }

  async tally(
    key: string,
    { holder, count }: { readonly holder: string; readonly count: number },
    ttlMs: number,
  ): Promise<number> {
    const reply = await this.#run(scripts.tally, [`${this.#prefix}tally:${key}`], [holder, count, ttlMs]);
    return z.coerce.number().parse(reply);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.disconnect();
  }

  /** The account is the hash tag, so that its keys are on one node of a cluster. */
  #accountKey(account: string, part: string): string {
    return `${this.#prefix}{${account}}:${part}`;
  }

  #accountKeys(account: string): string[] {
    return ["levels", "open", "budgets", "settled"].map((part) => this.#accountKey(account, part));
  }

  async #run(script: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    try {
      return await this.#answer(this.#client.evalsha(script.sha1, keys.length, ...keys, ...args));
    } catch (error) {
      // The server has not seen the script since it started.
      if (!(error instanceof Error) || !error.message.startsWith("NOSCRIPT")) throw error;
      return await this.#answer(this.#client.eval(script.lua, keys.length, ...keys, ...args));
    }
  }

  /**
   * What the server answers, or an error after the time-out. ioredis has one of its own, which also strikes when it was
   * this process that stood still: here an answer that lies in the socket is read first.
   */
  #answer<T>(work: Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const giveUp = () => reject(new Error(`Redis did not answer within ${this.#timeoutMs} ms`));
    const timer = setTimeout(() => setImmediate(giveUp), this.#timeoutMs);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
    return promise;
  }
}

interface Script {
  readonly lua: string;
  readonly sha1: string;
}

const script = (lua: string): Script => ({ lua, sha1: createHash("sha1").update(lua).digest("hex") });

const scripts = {
  reserve: script(reserveScript),
  settle: script(settleScript),
  renew: script(renewScript),
  acquire: script(acquireScript),
  release: script(releaseScript),
  tally: script(tallyScript),
};

/** Seven arguments. The server's clock may be in another period than ours, so it gets the ends of three. */
function chargeArguments({ meter, amount }: Charge): (string | number)[] {
  const about = [meter.kind, meter.name, meter.limit, amount];
  if (meter.kind === "rate") return [...about, meter.windowMs, 0, 0];
  if (meter.kind === "concurrency") return [...about, 0, 0, 0];
  const nowMs = Date.now();
  const end = periodEnd(meter.period, nowMs);
  return [...about, periodStart(meter.period, nowMs), end, periodEnd(meter.period, end)];
}

/** A command fails rather than waits for a connection: whoever asked has another way. */
const commandOptions = {
  connectTimeout: connectTimeoutMs,
  maxRetriesPerRequest: 0,
  autoResendUnfulfilledCommands: false,
} as const;

const reconnectMs = (attempt: number): number =>
  Math.min(50 * 2 ** attempt, maxReconnectMs) * (0.5 + Math.random() / 2);

function singleOf(options: RedisOptions): Redis {
  return new Redis(options.url, {
    ...commandOptions,
    enableOfflineQueue: false,
    retryStrategy: reconnectMs,
  });
}

function clusterOf(options: RedisOptions): Cluster {
  const { hostname, port, username, password, protocol } = new URL(options.url);
  const isTls = protocol === "rediss:";
  return new Cluster([{ host: hostname, port: Number(port || 6379) }], {
    enableOfflineQueue: false,
    clusterRetryStrategy: reconnectMs,
    // Certificates carry names, not the addresses that these stand for.
    ...(isTls ? { dnsLookup: (address, callback) => callback(null, address) } : {}),
    redisOptions: {
      ...commandOptions,
      ...(isTls ? { tls: {} } : {}),
      ...(username === "" ? {} : { username: decodeURIComponent(username) }),
      ...(password === "" ? {} : { password: decodeURIComponent(password) }),
    },
  });
}

function chunks<T>(all: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(all.length / size) }, (_, at) => all.slice(at * size, (at + 1) * size));
}
