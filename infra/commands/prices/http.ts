import { setTimeout as delay } from "node:timers/promises";
import { PenstockError } from "../../../runtime/contracts/errors.ts";

const timeoutMs = 60_000;
const maxBodyBytes = 32 * 2 ** 20;
/** Waits between tries of an answer that may be better next time: limits of rate, and servers in trouble. */
const retryDelaysMs = [500, 2_000, 8_000];

/** One request to a price list. */
export interface PriceRequest {
  readonly url: string;
  readonly method?: "GET" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/**
 * Asks a price list and answers the text. Tries again when it is busy. Throws `upstream_failed`
 * with the place and the status; never with headers, which may hold a signature.
 */
export async function ask(request: PriceRequest, delaysMs: readonly number[] = retryDelaysMs): Promise<string> {
  const place = new URL(request.url).host;
  for (let tries = 0; ; tries += 1) {
    const answer = await once(request, place);
    if (answer.isWhole) return answer.text;
    const delayMs = delaysMs[tries];
    if (!answer.mayRecover || delayMs === undefined) throw answer.error;
    await delay(delayMs);
  }
}

type Answer =
  | { readonly isWhole: true; readonly text: string }
  | { readonly isWhole: false; readonly mayRecover: boolean; readonly error: PenstockError };

async function once({ url, method = "GET", headers = {}, body }: PriceRequest, place: string): Promise<Answer> {
  try {
    const signal = AbortSignal.timeout(timeoutMs);
    const response = await fetch(url, {
      method,
      headers,
      signal,
      redirect: "error",
      ...(body === undefined ? {} : { body }),
    });
    if (response.ok) return { isWhole: true, text: await boundedText(response) };
    const text = (await boundedText(response)).slice(0, 300).replaceAll(/\s+/g, " ");
    const mayRecover = response.status === 429 || response.status >= 500;
    return { isWhole: false, mayRecover, error: failed(`${place} answered ${response.status}: ${text}`) };
  } catch (cause) {
    if (cause instanceof PenstockError) throw cause;
    const error = failed(
      `${place} cannot be reached: ${cause instanceof Error ? cause.message : String(cause)}`,
      cause,
    );
    return { isWhole: false, mayRecover: true, error };
  }
}

async function boundedText(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of response.body ?? []) {
    size += part.length;
    if (size > maxBodyBytes)
      throw failed(`an answer of ${new URL(response.url).host} is larger than ${maxBodyBytes} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

function failed(problem: string, cause?: unknown): PenstockError {
  return new PenstockError(
    "upstream_failed",
    `${problem}. No price was changed.`,
    cause === undefined ? {} : { cause },
  );
}
