import { PenstockError } from "../../contracts/errors.ts";
import { sourceSchemes, type SourceScheme } from "../../contracts/model.ts";
import { azureSource } from "./azure.ts";
import { fileSource } from "./file.ts";
import { httpSource } from "./http.ts";
import { hubSource } from "./hub.ts";
import { s3Source } from "./s3.ts";
import type { Source, SourceFactory, SourceOptions } from "./source.ts";
import { joinSources, shardUris } from "./split.ts";
import { safeUri } from "./uri.ts";

/** The one table of schemes. A scheme without a line here does not compile. */
const factories = {
  file: fileSource,
  https: httpSource,
  http: httpSource,
  hf: hubSource,
  az: azureSource,
  s3: s3Source,
} as const satisfies Record<SourceScheme, SourceFactory>;

/**
 * The source of a URI; all shards when it names one shard of a split GGUF.
 * Does no I/O. Throws `invalid_config` for a URI that no scheme understands.
 */
export function createSource(uri: string, options: SourceOptions = {}): Source {
  const scheme = schemeOf(uri);
  const sources = shardUris(uri).map((one) => factories[scheme](one, options));
  return joinSources(safeUri(uri), sources);
}

function schemeOf(uri: string): SourceScheme {
  const written = uri.slice(0, Math.max(0, uri.indexOf("://")));
  const scheme = sourceSchemes.find((known) => known === written);
  if (scheme !== undefined) return scheme;
  throw new PenstockError(
    "invalid_config",
    `The source ${safeUri(uri)} should start with ${sourceSchemes.map((known) => `${known}://`).join(", ")}.`,
    { param: "model.source" },
  );
}

export type { AzureOptions, S3Options, SourceOptions } from "./source.ts";
