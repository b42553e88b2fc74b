import type { PenstockError } from "../contracts/errors.ts";
import type { Outlet } from "./outlet.ts";

/** Headers of a server-sent event stream that no proxy may hold back. */
export const sseHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
} as const;

/** Ends a stream that has begun with an `error` event. No `[DONE]` follows, so a client cannot take it for a success. */
export function writeSseError(outgoing: Outlet, error: PenstockError, body: object = error.toBody()): void {
  outgoing.end(`event: error\ndata: ${JSON.stringify(body)}\n\n`);
}

/** A comment line: keeps a held stream alive and tells people how far the load is. Clients ignore it. */
export function sseComment(text: string): string {
  return `: ${text.replaceAll(/[\r\n]+/g, " ")}\n\n`;
}
