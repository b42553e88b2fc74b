import type { HookRequest, HookResponse, HookStages } from "./hook.ts";

/** Where in a request a hook is called. */
export type Stage = keyof HookStages;
export const stages = ["before", "after", "events"] as const satisfies readonly Stage[];

/** What a hook's thread is started with. */
export interface ThreadData {
  readonly moduleUrl: string;
  readonly options: unknown;
}

/** One call of a hook. */
export type Call =
  | { readonly stage: "before"; readonly request: HookRequest }
  | { readonly stage: "after"; readonly request: HookRequest; readonly response: HookResponse }
  /** `request` comes with the first events of a stream alone. Answered with a list: one entry for each event. */
  | {
      readonly stage: "events";
      readonly stream: number;
      readonly request: HookRequest | null;
      readonly events: readonly unknown[];
    };

export type ToThread =
  | { readonly kind: "call"; readonly id: number; readonly call: Call }
  | { readonly kind: "forget"; readonly stream: number }
  /** Answered at once, by a thread that is not stuck. */
  | { readonly kind: "ping" };

export type FromThread =
  | { readonly kind: "ready"; readonly name: string; readonly stages: readonly Stage[] }
  /** The module cannot be used; the thread ends. */
  | { readonly kind: "unusable"; readonly problems: readonly Problem[] }
  /** What the hook returned is not to be trusted. */
  | { readonly kind: "result"; readonly id: number; readonly value: unknown }
  | { readonly kind: "failed"; readonly id: number; readonly reason: string }
  | { readonly kind: "pong" };

/** What is wrong with a hook: of its module, or of its options. */
export interface Problem {
  /** `module`, or the path of an option such as `options.patterns[0]`. */
  readonly path: string;
  readonly message: string;
}
