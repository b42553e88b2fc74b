import { PenstockError } from "../../contracts/errors.ts";

/** Query parameters that sign or authorise an address (Azure SAS, S3 and GCS presigned, CloudFront) and change per link. */
const signing =
  /^(x-amz-.*|x-goog-.*|sig|s[a-z]|spr|sip|sks?t?|ske|skv|skoid|sktid|signature|expires|policy|key-pair-id|access_token|token)$/i;

/** The URI as it may be shown and logged: without user, password, query and fragment. */
export function safeUri(uri: string): string {
  return uri.replace(/[?#].*$/s, "").replace(/^([a-z0-9]+:\/\/)[^/]*@(?=[^/])/i, "$1");
}

/**
 * What names the content: the URI without credentials, but with the query parameters that choose it.
 * A link that is signed anew every hour keeps one identity.
 */
export function identityOf(uri: string): string {
  const query = /\?([^#]*)/.exec(uri)?.[1];
  if (query === undefined) return safeUri(uri);
  const chosen = query.split("&").filter((pair) => !signing.test(pair.split("=", 1)[0] ?? ""));
  return safeUri(uri) + (chosen.length === 0 ? "" : `?${chosen.join("&")}`);
}

/** The parts of `scheme://first/second/...`, decoded. Throws `invalid_config` when fewer than `atLeast`. */
export function segmentsOf(uri: string, { atLeast, shape }: { atLeast: number; shape: string }): string[] {
  const path = uri.replace(/^[a-z0-9]+:\/\//i, "").replace(/[?#].*$/s, "");
  const segments = path.split("/").filter((segment) => segment !== "");
  if (segments.length < atLeast) {
    throw new PenstockError("invalid_config", `The source ${safeUri(uri)} should look like ${shape}.`, {
      param: "model.source",
    });
  }
  try {
    const decoded = segments.map((segment) => decodeURIComponent(segment));
    // Clients of stores and hubs build addresses from these, which would climb.
    if (!decoded.some((segment) => segment === "." || segment === "..")) return decoded;
  } catch (cause) {
    throw new PenstockError("invalid_config", `The source ${safeUri(uri)} has a broken %-escape.`, {
      param: "model.source",
      cause,
    });
  }
  throw new PenstockError("invalid_config", `The source ${safeUri(uri)} may not contain "." or ".." segments.`, {
    param: "model.source",
  });
}
