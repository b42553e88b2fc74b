import { createHash } from "node:crypto";
import type { ModelSpec } from "../../contracts/model.ts";
import { identityOf, safeUri } from "../sources/uri.ts";

/** What the cache needs to know of a model. Its id is only noted down, so that a restart knows which models are there. */
export type CachedSpec = Pick<ModelSpec, "source" | "format" | "sha256"> & Partial<Pick<ModelSpec, "id">>;

const pattern = /^[a-z0-9][a-z0-9-]{0,47}-[0-9a-f]{16}$/;

/**
 * Name of a model's folder in the cache: a slug for people, and a hash of what names the content (source without
 * credentials, format, checksum). Model ids have no part in it, so two ids of one source share an entry.
 * What a name in a source points to (a branch of a hub, a file that is replaced) is looked up once, when it is fetched:
 * an entry stays what it is until it is removed (`file://` sources are looked at again). Name a commit or a checksum where that matters.
 */
export function keyOf({ source, format, sha256 }: CachedSpec): string {
  const identity = identityOf(source);
  // Without the query, which may hold a key that nobody told us is one.
  const name = safeUri(source)
    .replace(/^[a-z0-9]+:\/\//, "")
    .split("/")
    .slice(-2)
    .join("-");
  const slug = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .slice(0, 48)
    .replaceAll(/^-+|-+$/g, "");
  const hash = createHash("sha256")
    .update(JSON.stringify([identity, format, sha256 ?? null]))
    .digest("hex");
  return `${slug === "" ? "model" : slug}-${hash.slice(0, 16)}`;
}

/** Whether a name is one that `keyOf` makes. */
export function isKey(name: string): boolean {
  return pattern.test(name);
}
