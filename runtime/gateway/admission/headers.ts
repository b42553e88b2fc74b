import type { Charge, Reading } from "../stores/hot.ts";
import { meterNames } from "./charges.ts";

/** Put together once: a name that is made for each answer is looked up among all strings each time. */
const headerNames = new Map<string, readonly [limit: string, remaining: string, reset: string]>(
  meterNames.map((name) => [
    name,
    [`x-ratelimit-limit-${name}`, `x-ratelimit-remaining-${name}`, `x-ratelimit-reset-${name}`],
  ]),
);

/** The headers that OpenAI's clients read, for the meters that the tenant has. */
export function rateLimitHeaders(charges: readonly Charge[], readings: readonly Reading[]): Record<string, string> {
  const headers: Record<string, string> = {};
  let at = 0;
  for (const { meter } of charges) {
    const reading = readings[at];
    at += 1;
    const names = headerNames.get(meter.name);
    if (meter.kind !== "rate" || reading === undefined || names === undefined) continue;
    const [limit, remaining, reset] = names;
    headers[limit] = String(reading.limit);
    headers[remaining] = String(Math.max(0, reading.remaining));
    headers[reset] = duration(reading.resetMs);
  }
  return headers;
}

/** As OpenAI writes a time: `120ms`, `1.5s`, `6m0s`, `2h3m0s`. */
export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.ceil(ms)}ms`;
  const seconds = Math.ceil(ms / 100) / 10;
  if (seconds < 60) return `${seconds}s`;
  const whole = Math.ceil(ms / 1_000);
  const [hours, minutes] = [Math.floor(whole / 3_600), Math.floor((whole % 3_600) / 60)];
  return `${hours > 0 ? `${hours}h` : ""}${minutes}m${whole % 60}s`;
}
