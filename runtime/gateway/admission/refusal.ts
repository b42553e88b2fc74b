import { PenstockError } from "../../contracts/errors.ts";
import type { Charge, ReserveAnswer } from "../stores/hot.ts";
import { duration, rateLimitHeaders } from "./headers.ts";

/** A refusal by a tenant's own limits, with the headers that go with it. */
export class LimitError extends PenstockError {
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    code: "rate_limited" | "budget_exceeded",
    message: string,
    details: { readonly retryAfterSeconds?: number; readonly headers: Readonly<Record<string, string>> },
  ) {
    super(code, message, details);
    this.headers = details.headers;
  }
}

/** The error for a request whose client left while it waited. */
export function clientClosed(): PenstockError {
  return new PenstockError("client_closed", "The client left.");
}

/** The error for charges that a store refused. `slotMs` is how long this tenant's requests run, as measured. */
export function refusal(
  charges: readonly Charge[],
  answer: Extract<ReserveAnswer, { granted: false }>,
  slotMs: number,
): LimitError {
  const charge = charges[answer.refusedBy];
  if (charge === undefined) throw new Error("the store refused a charge that was not asked for");
  const headers = rateLimitHeaders(charges, answer.readings);
  const { meter } = charge;
  // Slots become free one after another, evenly.
  const waitMs = meter.kind === "concurrency" ? slotMs / meter.limit : answer.retryAfterMs;
  const code = meter.kind === "budget" ? "budget_exceeded" : "rate_limited";
  const message = messageOf(charge, waitMs);
  if (waitMs === null) return new LimitError(code, message, { headers });
  return new LimitError(code, message, { headers, retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1_000)) });
}

function messageOf({ meter, amount }: Charge, waitMs: number | null): string {
  const again = waitMs === null ? "" : `Try again in ${duration(waitMs)}.`;
  if (meter.kind === "concurrency") return `All ${meter.limit} of your concurrent requests run; wait until one ends.`;
  if (meter.kind === "budget") {
    const usd = (meter.limit / 1e9).toFixed(2);
    if (waitMs === null) return `The request may cost more than the whole budget of ${usd} USD; lower \`max_tokens\`.`;
    return `The budget of ${usd} USD per ${meter.period} is used up, or this request may exceed it. ${again}`;
  }
  if (waitMs === null) {
    return `The request may use ${amount} ${meter.name}, and the limit is ${meter.limit} per minute; lower \`max_tokens\` or shorten the prompt.`;
  }
  return `The limit of ${meter.limit} ${meter.name} per minute is reached. ${again}`;
}
