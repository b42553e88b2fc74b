import { z } from "zod";
import type { Logger } from "../../lib/log.ts";
import { jsonOf, MetadataClient, type MetadataAnswer } from "./metadata.ts";
import { metadataUrl, type CloudNotices, type ReclaimNotice, type ReclaimOptions } from "./notices.ts";
import { deliverOnce, poll } from "./poll.ts";

/** Lifetime of a session token: the longest that EC2 gives. */
const tokenSeconds = 21_600;

/** A token is replaced this long before it ends, so that it does not end on its way. */
const tokenMarginMs = 60_000;

/** Such as `{"action": "terminate", "time": "2026-09-18T08:22:00Z"}`; the path is not there without a notice. */
const instanceAction = z.object({ action: z.string().regex(/^[a-z-]{1,32}$/), time: z.iso.datetime() });

/** Such as `{"noticeTime": "2026-10-27T08:22:00Z"}`. */
const recommendation = z.object({ noticeTime: z.iso.datetime() });

/** EC2 spot instances: interruption notices (two minutes ahead) and rebalance recommendations, over IMDSv2 alone. */
export class AwsNotices implements CloudNotices {
  readonly #client: MetadataClient;
  readonly #log: Logger;
  readonly #intervalMs: number;
  readonly #timeoutMs: number;
  #token: { readonly text: string; readonly endsAt: number } | null = null;

  constructor(options: ReclaimOptions) {
    this.#client = new MetadataClient(options.metadataUrl ?? metadataUrl);
    this.#log = options.log.child({ cloud: "aws" });
    this.#intervalMs = options.intervalMs ?? 5_000;
    this.#timeoutMs = options.timeoutMs ?? 2_000;
  }

  async answers(signal: AbortSignal): Promise<boolean> {
    return (await this.#freshToken(signal).catch(() => null)) !== null;
  }

  async watch(onNotice: (notice: ReclaimNotice) => void, signal: AbortSignal): Promise<void> {
    const deliverNotice = deliverOnce(onNotice);
    // Its words hold its time: a time that changes is news.
    const deliver = (notice: ReclaimNotice): void => deliverNotice(notice.detail, notice);
    const look = async (): Promise<string | null> => {
      const problems = [await this.#interruption(deliver, signal), await this.#rebalance(deliver, signal)];
      return problems.find((problem) => problem !== null) ?? null;
    };
    await poll(look, { intervalMs: this.#intervalMs, signal, log: this.#log });
  }

  async #interruption(deliver: (notice: ReclaimNotice) => void, signal: AbortSignal): Promise<string | null> {
    const answer = await this.#get("/latest/meta-data/spot/instance-action", signal);
    if (answer.status === 404) return null;
    const { data } = instanceAction.safeParse(answer.status === 200 ? jsonOf(answer) : undefined);
    if (data === undefined) return `The answer about spot/instance-action (status ${answer.status}) is no notice.`;
    const detail = `spot interruption: ${data.action} at ${data.time}`;
    deliver({ cloud: "aws", kind: "reclaim", deadline: new Date(data.time), detail, acknowledge });
    return null;
  }

  async #rebalance(deliver: (notice: ReclaimNotice) => void, signal: AbortSignal): Promise<string | null> {
    const answer = await this.#get("/latest/meta-data/events/recommendations/rebalance", signal);
    if (answer.status === 404) return null;
    const { data } = recommendation.safeParse(answer.status === 200 ? jsonOf(answer) : undefined);
    if (data === undefined) return `The answer about rebalance (status ${answer.status}) is no recommendation.`;
    const detail = `rebalance recommended at ${data.noticeTime}`;
    deliver({ cloud: "aws", kind: "rebalance", deadline: null, detail, acknowledge });
    return null;
  }

  /** Reads a path, with a new token when the old one is no longer taken. */
  async #get(path: string, signal: AbortSignal): Promise<MetadataAnswer> {
    for (let attempt = 1; ; attempt++) {
      if (this.#token === null || this.#token.endsAt < performance.now()) {
        this.#token = await this.#freshToken(signal);
        if (this.#token === null) throw new Error("The instance metadata service gave no session token.");
      }
      const headers = { "x-aws-ec2-metadata-token": this.#token.text };
      const answer = await this.#client.send({ path, headers, timeoutMs: this.#timeoutMs, signal });
      if (answer.status !== 401 || attempt === 2) return answer;
      this.#token = null;
    }
  }

  /** A new session token; null when what answers gives none. */
  async #freshToken(signal: AbortSignal): Promise<{ text: string; endsAt: number } | null> {
    const { status, text } = await this.#client.send({
      path: "/latest/api/token",
      method: "PUT",
      headers: { "x-aws-ec2-metadata-token-ttl-seconds": String(tokenSeconds) },
      timeoutMs: this.#timeoutMs,
      signal,
    });
    // It goes into a header again, so it must be one word; real ones are 56 characters of base64.
    if (status !== 200 || !/^[\w+/=-]{16,256}$/.test(text)) return null;
    return { text, endsAt: performance.now() + tokenSeconds * 1_000 - tokenMarginMs };
  }
}

/** EC2 takes no acknowledgement: the instance goes when its time has come. */
async function acknowledge(): Promise<void> {
  // Nothing to send.
}
