import { z } from "zod";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { problemLines } from "../../../runtime/contracts/validate.ts";
import { mostSeconds } from "./requests.ts";

/** What a generated load is like. */
export interface GeneratorOptions {
  readonly kind: (typeof kinds)[number];
  /** Requests a second, on average over an even day. */
  readonly rate: number;
  readonly seconds: number;
  /** Amplitude of the day's curve, 0 to 1. */
  readonly diurnal: number;
  /** Rate of Saturdays and Sundays as a part of the others'. */
  readonly weekend: number;
  readonly seed: number;
}

const kinds = ["conversation", "chat", "code"] as const;

const query = z.strictObject({
  rate: z.coerce.number().positive().max(1e7).default(1),
  days: z.coerce.number().min(0).default(0),
  hours: z.coerce.number().min(0).default(0),
  minutes: z.coerce.number().min(0).default(0),
  diurnal: z.coerce.number().min(0).max(1).default(0),
  weekend: z.coerce.number().min(0).max(10).default(1),
  seed: z.coerce.number().int().min(0).max(4_294_967_295).default(1),
});

/** What precedes the text of a generator. */
export const generatorPrefix = "generator:";

/** Reads `generator:conversation?rate=10&hours=2&diurnal=0.6`. Throws `invalid_config`. */
export function parameters(spec: string): GeneratorOptions {
  const [name = "", text = "", ...rest] = spec.slice(generatorPrefix.length).split("?");
  const kind = kinds.find((candidate) => candidate === name);
  if (kind === undefined || rest.length > 0) {
    throw new PenstockError(
      "invalid_config",
      `${spec}: there is no generator \`${name}\`; there are ${kinds.join(", ")}`,
    );
  }
  const result = query.safeParse(Object.fromEntries(new URLSearchParams(text)));
  if (!result.success) {
    throw new PenstockError("invalid_config", `${spec}: ${problemLines(result.error).join("; ")}`);
  }
  const { days, hours, minutes, ...options } = result.data;
  const stated = days * 86_400 + hours * 3_600 + minutes * 60;
  const seconds = stated === 0 ? 3_600 : stated;
  if (seconds > mostSeconds) throw new PenstockError("invalid_config", `${spec}: at most ten years`);
  return { kind, seconds, ...options };
}
