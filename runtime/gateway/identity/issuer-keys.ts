import { createLocalJWKSet, errors, type FlattenedJWSInput, type JWTHeaderParameters } from "jose";
import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { isSecure, type Issuer } from "./issuer.ts";

/** When keys of an issuer are asked for, and how much is taken from it. */
export interface IssuerKeyOptions {
  /** One answer may take this long. */
  readonly timeoutMs: number;
  /** Keys older than this are asked for again in the background. */
  readonly refreshMs: number;
  /** Between two questions to an issuer, whatever tokens name as key. */
  readonly cooldownMs: number;
  /** While the issuer cannot be reached, its last keys count for this long. */
  readonly staleMs: number;
  readonly maxBytes: number;
}

export const issuerKeyDefaults: IssuerKeyOptions = {
  timeoutMs: 5_000,
  refreshMs: 600_000,
  cooldownMs: 5_000,
  staleMs: 86_400_000,
  maxBytes: 262_144,
};

const discoveryDocument = z.object({ issuer: z.string(), jwks_uri: z.url() });

/** jose reads the fields of each key when a token names it; a symmetric one never fits an algorithm of ours. */
const keySet = z.object({ keys: z.array(z.looseObject({ kty: z.string() })).max(100) });

type FindKey = ReturnType<typeof createLocalJWKSet>;

/** The public keys of one issuer, cached, and asked for again when a token names one that is new. */
export class IssuerKeys {
  readonly #issuer: Issuer;
  readonly #options: IssuerKeyOptions;
  readonly #log: Logger;
  #keys: { readonly find: FindKey; readonly fetchedAt: number } | undefined;
  #fetching: Promise<FindKey> | undefined;
  #attemptedAt = -Infinity;
  #hasFailed = false;

  constructor(issuer: Issuer, log: Logger, options: Partial<IssuerKeyOptions> = {}) {
    this.#issuer = issuer;
    this.#log = log;
    this.#options = { ...issuerKeyDefaults, ...options };
  }

  /**
   * The key that a token names, for `jwtVerify`. Throws jose's error when the issuer has no such key, and `overloaded`
   * when the issuer would have to be asked and cannot be reached.
   */
  readonly find = async (header: JWTHeaderParameters, token: FlattenedJWSInput): ReturnType<FindKey> => {
    const known = this.#keys === undefined || this.#isStale(this.#keys) ? await this.#fetch() : this.#keys.find;
    try {
      return await known(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      if (!this.#mayFetch && !this.#hasFailed) throw error;
    }
    // The issuer may have a new key since.
    const latest = await this.#fetch();
    return latest(header, token);
  };

  #isStale({ fetchedAt }: { readonly fetchedAt: number }): boolean {
    const age = performance.now() - fetchedAt;
    if (age > this.#options.refreshMs && this.#mayFetch) void this.#fetch().catch(() => undefined);
    return age > this.#options.staleMs;
  }

  get #mayFetch(): boolean {
    return this.#fetching !== undefined || performance.now() - this.#attemptedAt >= this.#options.cooldownMs;
  }

  async #fetch(): Promise<FindKey> {
    if (!this.#mayFetch) throw this.#unreachable();
    this.#fetching ??= this.#fetchNow().finally(() => (this.#fetching = undefined));
    return this.#fetching;
  }

  async #fetchNow(): Promise<FindKey> {
    this.#attemptedAt = performance.now();
    try {
      const uri = this.#issuer.jwksUri ?? (await this.#discover());
      const { keys } = keySet.parse(await this.#readJson(uri));
      const find = createLocalJWKSet({ keys });
      this.#keys = { find, fetchedAt: performance.now() };
      this.#hasFailed = false;
      return find;
    } catch (err) {
      this.#hasFailed = true;
      this.#log.error({ err, issuer: this.#issuer.issuer }, "the keys of this issuer cannot be fetched");
      throw this.#unreachable(err);
    }
  }

  async #discover(): Promise<string> {
    const { issuer } = this.#issuer;
    const answer = await this.#readJson(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`);
    const document = discoveryDocument.parse(answer);
    if (document.issuer !== issuer) throw new Error(`its discovery document is of another issuer, ${document.issuer}`);
    if (!isSecure(new URL(document.jwks_uri)))
      throw new Error(`its keys are at ${document.jwks_uri}, which is not https`);
    return document.jwks_uri;
  }

  async #readJson(url: string): Promise<unknown> {
    const signal = AbortSignal.timeout(this.#options.timeoutMs);
    const response = await fetch(url, { signal, redirect: "error", headers: { accept: "application/json" } });
    const body = await readBounded(response, this.#options.maxBytes);
    if (!response.ok) throw new Error(`${url} answered ${response.status}`);
    return JSON.parse(body);
  }

  #unreachable(cause?: unknown): PenstockError {
    return new PenstockError(
      "overloaded",
      `The keys of ${this.#issuer.issuer} cannot be fetched at the moment; retry.`,
      {
        retryAfterSeconds: this.#options.cooldownMs / 1_000,
        cause,
      },
    );
  }
}

async function readBounded(response: Response, maxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  // `fetch` gives bytes, which its type leaves open.
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size > maxBytes) throw new Error(`${response.url} answered more than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
