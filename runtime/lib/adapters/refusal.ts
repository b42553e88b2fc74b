import { PenstockError } from "../../contracts/errors.ts";

/** Why an adapter is refused. `message` names what to do. */
export function refusal(message: string, cause?: unknown): PenstockError {
  return new PenstockError("adapter_invalid", message, { cause });
}

/** Waits for the reading of one of an adapter's files: what is wrong with it is wrong with the adapter. */
export async function ofAdapter<Value>(reading: Promise<Value>, remedy = ""): Promise<Value> {
  try {
    return await reading;
  } catch (thrown) {
    if (!(thrown instanceof PenstockError)) throw thrown;
    throw refusal(`${thrown.message} ${remedy}`.trimEnd(), thrown);
  }
}

/** Throws when an adapter's rank is above what its engine reserves memory for; null reserves none. */
export function checkRank(rank: number, maxRank: number | null): void {
  if (maxRank === null || rank <= maxRank) return;
  throw refusal(
    `The adapter has rank ${rank}, and this model takes adapters up to rank ${maxRank}: raise lora.maxRank to at least ` +
      `${rank}, or train the adapter with a smaller rank.`,
  );
}
