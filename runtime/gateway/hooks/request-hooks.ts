import type { IncomingHttpHeaders } from "node:http";
import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import type { Principal } from "../../contracts/tenant.ts";
import { forwardedList, stopping, tableOf } from "../../lib/forward-headers.ts";
import { refusalCodes, type HookRequest, type HookResponse } from "./hook.ts";
import type { LoadedHook, Taken } from "./loaded-hook.ts";
import { isJson, type SseItem } from "./sse-items.ts";

/** What is known of a request beside its body. */
export type About = Omit<HookRequest, "body">;

const refusal = z.strictObject({ refuse: z.string().min(1).max(1_000), code: z.enum(refusalCodes).optional() });
const changedRequest = z.strictObject({ body: z.record(z.string(), z.unknown()) });
const changedAnswer = z.strictObject({ body: z.unknown() });
const eventAnswers = z.array(z.union([z.undefined(), refusal, z.array(z.unknown()).max(10_000)]));

/** Hooks see no header by which clients say who they are. */
const withoutCredentials = stopping(["authorization", "x-api-key", "cookie"]);

/** What hooks may know of a request and of who sends it. */
export function aboutOf(
  request: Omit<About, "tenant" | "credentialId" | "headers">,
  { tenant, credentialId }: Principal,
  headers: IncomingHttpHeaders,
): About {
  return { ...request, tenant: tenant.id, credentialId, headers: tableOf(forwardedList(headers, withoutCredentials)) };
}

let streams = 0;

/** The hooks that see one request. */
export class RequestHooks implements Disposable {
  readonly #hooks: readonly LoadedHook[];
  readonly #about: About;
  readonly #leave: () => void;
  #body: HookRequest["body"] = null;
  /** Of the answer, when it is one; 0 before its first event. */
  #stream = 0;

  constructor(hooks: readonly LoadedHook[], about: About, leave: () => void) {
    this.#hooks = hooks;
    this.#about = about;
    this.#leave = leave;
  }

  get seeAnswers(): boolean {
    return this.#hooks.some((hook) => hook.has("after"));
  }

  get seeEvents(): boolean {
    return this.#hooks.some((hook) => hook.has("events"));
  }

  /**
   * Shows a request to the hooks. `read` checks a body that one of them has changed, as the client's was checked; answers
   * what it made of the last one, or null when nothing was changed. Throws refusals and `hook_failed`.
   */
  async before<Read extends { readonly fields: HookRequest["body"] }>(
    body: HookRequest["body"],
    read: (body: Readonly<Record<string, unknown>>) => Read,
  ): Promise<Read | null> {
    this.#body = body;
    let changed: Read | null = null;
    for (const hook of this.#hooks) {
      if (!hook.has("before")) continue;
      const call = { stage: "before", request: this.#request } as const;
      const take = (answer: unknown): Taken<Read> =>
        taken(answer, (change) => {
          if (this.#body === null) throw new Error("it changed the body of an upload");
          return read(checked(changedRequest, change).body);
        });
      const next = await hook.run({ about: this.#about, call, take });
      if (next === null) continue;
      changed = next;
      this.#body = next.fields;
    }
    return changed;
  }

  /** Shows an answer to the hooks. Answers the body that the client gets in its place, or null. Throws as `before` does. */
  async after(response: HookResponse): Promise<Buffer | null> {
    let changed: HookResponse | null = null;
    for (const hook of this.#hooks) {
      if (!hook.has("after")) continue;
      const current: HookResponse = changed ?? response;
      const call = { stage: "after", request: this.#request, response: current } as const;
      const take = (answer: unknown): Taken<HookResponse> =>
        taken(answer, (change) => {
          if (current.body === null) throw new Error("it changed an answer that is no JSON");
          return { ...current, body: checked(changedAnswer, change).body ?? null };
        });
      changed = (await hook.run({ about: this.#about, call, take })) ?? changed;
    }
    return changed === null ? null : Buffer.from(JSON.stringify(changed.body));
  }

  /** An answer is longer than hooks may see. Throws `hook_failed`, unless all that would see it may be skipped. */
  tooLong(): void {
    const error = new Error("the answer is longer than hooks may see");
    for (const hook of this.#hooks) if (hook.has("after")) hook.fail(this.#about, error);
  }

  /** Shows events of the answer's stream to the hooks. Answers what comes in their place. Throws as `before` does. */
  async events(items: readonly SseItem[]): Promise<readonly SseItem[]> {
    let current = items;
    const isFirst = this.#stream === 0;
    if (isFirst) this.#stream = streams += 1;
    for (const hook of this.#hooks) {
      if (!hook.has("events")) continue;
      const shown = current.filter(isJson);
      const call = {
        stage: "events",
        stream: this.#stream,
        request: isFirst ? this.#request : null,
        events: shown.map(({ data }) => data),
      } as const;
      const take = (answers: unknown): Taken<readonly SseItem[]> => replaced(current, checked(eventAnswers, answers));
      current = (await hook.run({ about: this.#about, call, take })) ?? current;
    }
    return current;
  }

  [Symbol.dispose](): void {
    if (this.#stream !== 0) for (const hook of this.#hooks) if (hook.has("events")) hook.forget(this.#stream);
    this.#leave();
  }

  get #request(): HookRequest {
    return { ...this.#about, body: this.#body };
  }
}

function checked<Schema extends z.ZodType>(schema: Schema, answer: unknown): z.infer<Schema> {
  const result = schema.safeParse(answer);
  if (result.success) return result.data;
  throw new Error("it returned neither a refusal nor a change");
}

function taken<Value>(answer: unknown, change: (answer: unknown) => Value): Taken<Value> {
  if (answer === undefined) return { outcome: "passed" };
  const refused = refusal.safeParse(answer);
  if (refused.success) return { outcome: "refused", refusal: errorOf(refused.data) };
  return { outcome: "changed", value: change(answer) };
}

/** Events with what a hook answered for each of those that hold JSON. */
function replaced(items: readonly SseItem[], answers: z.infer<typeof eventAnswers>): Taken<readonly SseItem[]> {
  if (answers.length !== items.filter(isJson).length) throw new Error("it did not answer for each event");
  let at = 0;
  let isChanged = false;
  const next: SseItem[] = [];
  for (const item of items) {
    const answer = isJson(item) ? answers[at++] : undefined;
    if (answer === undefined) next.push(item);
    else if ("refuse" in answer) return { outcome: "refused", refusal: errorOf(answer) };
    else {
      isChanged = true;
      for (const data of answer) next.push({ head: item.head, data, text: null });
    }
  }
  return isChanged ? { outcome: "changed", value: next } : { outcome: "passed" };
}

function errorOf({ refuse, code = "refused_by_hook" }: z.infer<typeof refusal>): PenstockError {
  return new PenstockError(code, refuse);
}
