import { z } from "zod";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { problemLines } from "../../runtime/contracts/validate.ts";

/**
 * Checks a file of the catalogue. Throws `invalid_config` that names the file and every wrong entry:
 * the catalogue is edited by hand and by `npm run refresh-prices`.
 */
export function checked<Schema extends z.ZodType>(file: string, schema: Schema, content: unknown): z.infer<Schema> {
  const result = schema.safeParse(content);
  if (result.success) return result.data;
  throw new PenstockError("invalid_config", `infra/catalog/${file}: ${problemLines(result.error).join("; ")}`);
}

/** A day such as 2026-07-20. */
export const day = z.iso.date();
