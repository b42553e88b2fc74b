import { request, type Dispatcher } from "undici";
import { z } from "zod";
import { retryAfterSeconds } from "./answer.ts";
import type { Provider } from "./provider.ts";
import { keyHeader } from "./send.ts";

const timeoutMs = 2_000;

/** A list of 2,000 models. */
const maxAnswerBytes = 1024 * 1024;

const listing = z.object({
  data: z.array(z.object({ id: z.string(), penstock: z.object({ state: z.string() }).optional() })),
});

/**
 * Asks another gateway whether it takes requests, and which models answer at once. What it says stands until it is asked
 * again. Never throws; answers in words what is wrong, null when nothing is.
 */
export async function probe(provider: Provider): Promise<string | null> {
  const { url } = provider.options;
  try {
    const ready = await get(`${url}/ready`, {});
    await ready.body.dump();
    const wait = retryAfterSeconds(ready.headers["retry-after"]);
    provider.isReachable = ready.statusCode === 200;
    if (!provider.isReachable) {
      if (wait !== null) provider.pause(wait);
      return `/ready answers ${ready.statusCode}`;
    }
    const models = await get(`${url}/v1/models`, keyHeader(provider.options));
    if (models.statusCode !== 200) {
      await models.body.dump();
      provider.warm = null;
      return `/v1/models answers ${models.statusCode}`;
    }
    const { data } = listing.parse(await json(models.body));
    provider.warm = new Set(data.filter(({ penstock }) => penstock?.state === "READY").map(({ id }) => id));
    return null;
  } catch (error) {
    provider.isReachable = false;
    return error instanceof z.ZodError ? "/v1/models answers in another shape" : String(error);
  }
}

function get(url: string, headers: Record<string, string>): Promise<Dispatcher.ResponseData> {
  return request(url, { headers, signal: AbortSignal.timeout(timeoutMs) });
}

async function json(body: AsyncIterable<Uint8Array>): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > maxAnswerBytes) throw new Error("/v1/models answers without end");
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString("utf8"));
}
