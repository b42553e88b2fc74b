import type { Charge, Reading } from "../stores/hot.ts";

/** The headers that OpenAI's clients read, for the meters that the tenant has. */
export function rateLimitHeaders(charges: readonly Charge[], readings: readonly Reading[]): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [at, { meter }] of charges.entries()) {
    const reading = readings[at];
    if (meter.kind !== "rate" || reading === undefined) continue;
    headers[`x-ratelimit-limit-${meter.name}`] = String(reading.limit);
    headers[`x-ratelimit-remaining-${meter.name}`] = String(Math.max(0, reading.remaining));
    headers[`x-ratelimit-reset-${meter.name}`] = duration(reading.resetMs);
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
