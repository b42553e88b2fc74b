import { defineHook, z, type HookRequest } from "../hook.ts";

/*
 * Fills in and bounds parameters, and puts a system prompt of the operator's first: `penstock:set-defaults`. Which models
 * it is for stands in the config, as for any hook.
 */

type Body = NonNullable<HookRequest["body"]>;
type Endpoint = HookRequest["endpoint"];

const bound = z
  .strictObject({ min: z.number().optional(), max: z.number().optional() })
  .refine(({ min, max }) => min === undefined || max === undefined || min <= max, "`min` is above `max`");

const endpoints = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"] as const;

export const hook = defineHook({
  name: "set-defaults",
  options: z.strictObject({
    /** Fields that a request gets when it leaves them out: `{ temperature: 0.2 }`. */
    defaults: z.record(z.string(), z.unknown()).default({}),
    /** Numbers are brought within these: `{ max_tokens: { max: 4096 } }`. A field that is left out stays so. */
    bounds: z.record(z.string(), bound).default({}),
    /** Comes before whatever a client says, in a chat. */
    systemPrompt: z.string().min(1).max(100_000).optional(),
    endpoints: z
      .array(z.enum(endpoints))
      .min(1)
      .default([...endpoints]),
  }),
  create({ defaults, bounds, systemPrompt, endpoints: chosen }) {
    const seen: ReadonlySet<Endpoint> = new Set(chosen);
    return {
      before({ body, endpoint }) {
        if (body === null || !seen.has(endpoint)) return undefined;
        const filled = { ...body };
        for (const [name, value] of Object.entries(defaults)) filled[name] ??= value;
        for (const [name, { min = -Infinity, max = Infinity }] of Object.entries(bounds)) {
          const value = filled[name];
          if (typeof value === "number") filled[name] = Math.min(max, Math.max(min, value));
        }
        const prompted = systemPrompt === undefined ? {} : prompts(systemPrompt, endpoint, filled);
        return { body: { ...filled, ...prompted } };
      },
    };
  },
});

/** The field in which an API has its system prompt, with `prompt` first. */
function prompts(prompt: string, endpoint: Endpoint, { messages, system, instructions }: Body): Body {
  if (endpoint === "/v1/responses") return { instructions: joined(prompt, instructions) };
  if (endpoint === "/v1/messages") return { system: joined(prompt, system) };
  if (endpoint !== "/v1/chat/completions" || !Array.isArray(messages)) return {};
  const [first, ...rest]: unknown[] = messages;
  if (!isSystem(first)) return { messages: [{ role: "system", content: prompt }, ...messages] };
  return { messages: [{ ...first, content: joined(prompt, first["content"]) }, ...rest] };
}

/** Many chat templates take one system message alone, so that ours goes into the client's. */
function joined(prompt: string, own: unknown): unknown {
  if (typeof own === "string") return `${prompt}\n\n${own}`;
  return Array.isArray(own) ? [{ type: "text", text: prompt }, ...own] : prompt;
}

function isSystem(message: unknown): message is Record<string, unknown> {
  return typeof message === "object" && message !== null && "role" in message && message.role === "system";
}
