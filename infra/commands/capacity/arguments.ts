import { z } from "zod";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import type { Bounds, Settings } from "../../capacity/scenario.ts";
import type { Slo } from "../../capacity/tally.ts";
import type { CloudPlan } from "../../plan/plan.ts";

/** Options of the command, as they are written. */
export interface Words {
  readonly slo: string;
  readonly models: string;
  readonly bounds: string;
  readonly cached: string;
  readonly "without-spot": boolean;
  readonly speed: string;
  readonly resolution: string;
}

/** How to simulate. */
export interface Arguments {
  readonly settings: Settings;
  readonly speed: number;
  readonly resolution: "auto" | "requests" | "bins";
}

const resolutions = z.enum(["auto", "requests", "bins"]);

/** Reads the options. Throws `invalid_config` that names the option and how it is written. */
export function settingsOf(words: Words, plan: CloudPlan): Arguments {
  const resolution = resolutions.safeParse(words.resolution);
  if (!resolution.success) throw wrong("--resolution", "requests, bins or auto");
  const cachedShare = Number(words.cached);
  if (words.cached.trim() === "" || !(cachedShare >= 0 && cachedShare <= 0.99)) {
    throw wrong("--cached", "a number from 0 to 0.99, such as 0.16");
  }
  const speed = Number(words.speed);
  if (!(speed > 0 && speed <= 1e6)) throw wrong("--speed", "a number above 0, such as 3");
  return {
    settings: {
      slo: sloOf(words.slo),
      cachedShare,
      withoutSpot: words["without-spot"],
      seed: 1,
      mix: mixOf(words.models),
      bounds: boundsOf(words.bounds, plan),
    },
    speed,
    resolution: resolution.data,
  };
}

/** `ttft=2s,tpot=100ms,share=0.95`; what is not there is as in these. */
export function sloOf(text: string): Slo {
  const slo = { ttft: 2, tpot: 0.1, share: 0.95 };
  for (const part of partsOf(text)) {
    const [, name, number = "", unit] = /^(ttft|tpot|share)=(\d+(?:\.\d+)?)(ms|s)?$/.exec(part) ?? [];
    const value = Number(number) * (unit === "ms" ? 0.001 : 1);
    const isShare = name === "share";
    if (name === undefined || value <= 0 || isShare === (unit !== undefined) || (isShare && value > 1)) {
      throw wrong("--slo", "ttft=2s,tpot=100ms,share=0.95");
    }
    if (name === "ttft" || name === "tpot" || name === "share") slo[name] = value;
  }
  return { ttftSeconds: slo.ttft, tpotSeconds: slo.tpot, share: slo.share };
}

function mixOf(text: string): Record<string, number> {
  return Object.fromEntries(
    partsOf(text).map((part) => {
      const [, model, share] = /^([^=]+?)(?:=(\d+(?:\.\d+)?))?$/.exec(part) ?? [];
      const value = Number(share ?? 1);
      if (model === undefined || value <= 0) throw wrong("--models", "llama-3.1-8b=0.7,qwen3-8b=0.3");
      return [model, value];
    }),
  );
}

function boundsOf(text: string, plan: CloudPlan): Record<string, Bounds> {
  return Object.fromEntries(
    partsOf(text).map((part) => {
      const [, name, min, max, target] = /^([^=]+)=(\d{1,6})\.\.(\d{1,6})(?:@(\d{1,6}(?:\.\d+)?))?$/.exec(part) ?? [];
      const bounds = { min: Number(min), max: Number(max) };
      if (name === undefined || bounds.max < 1 || bounds.max < bounds.min) {
        throw wrong("--bounds", "small=2..40 or small=2..40@16");
      }
      const planned = plan.fleets.find((fleet) => fleet.name === name)?.scaling.targetRequests ?? 1;
      return [name, { ...bounds, targetRequests: target === undefined ? planned : Math.max(0.1, Number(target)) }];
    }),
  );
}

function partsOf(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

function wrong(option: string, form: string): PenstockError {
  return new PenstockError("invalid_config", `${option} is written as ${form}; see --help`);
}
