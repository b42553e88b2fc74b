import { z } from "zod";
import { modelId } from "./model.ts";

/** A plug-in of the gateway, in its config or in a stack file. */
export const hookOptions = z.strictObject({
  /** Path of an ES module in JavaScript or TypeScript, relative to the file; or `penstock:` and one of the library's. */
  module: z.string().min(1).max(4_096),
  /** For each call of the hook. */
  deadlineMs: z.int().min(1).max(60_000).default(250),
  /** What becomes of a request whose hook throws, answers nonsense or is late. */
  onError: z.enum(["refuse", "skip"]).default("refuse"),
  /** Models whose requests it sees; all unless told. */
  models: z.array(modelId).min(1).optional(),
  /** Checked by the hook's own schema. */
  options: z.unknown().optional(),
});

/** A hook to load: `module` is the path of a file. */
export type HookOptions = z.infer<typeof hookOptions>;

/** A hook of Penstock's own library, as the gateway's image has it. */
export const libraryHook = hookOptions.extend({
  module: z.string().regex(/^penstock:[a-z][a-z0-9-]*$/, "must be one of the library, such as penstock:redact-secrets"),
});
