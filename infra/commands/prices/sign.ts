import { createHash, createHmac } from "node:crypto";

/** A login to AWS. */
export interface AwsLogin {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
}

/** What is signed. */
export interface Unsigned {
  readonly url: string;
  readonly method: "GET" | "POST";
  /** In lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Where and when a signature is good. */
export interface SignatureScope {
  readonly region: string;
  readonly service: string;
  readonly now: Date;
}

/** Headers of a request with AWS's Signature Version 4 among them. The path is used as it is: our two APIs have `/`. */
export function signed(
  request: Unsigned,
  login: AwsLogin,
  { region, service, now }: SignatureScope,
): Record<string, string> {
  const time = now.toISOString().replaceAll(/[-:]|\.\d{3}/g, "");
  const day = time.slice(0, 8);
  const url = new URL(request.url);
  const headers: Record<string, string> = {
    ...request.headers,
    host: url.host,
    "x-amz-date": time,
    ...(login.sessionToken === undefined ? {} : { "x-amz-security-token": login.sessionToken }),
  };
  const names = Object.keys(headers).toSorted();
  const canonical = [
    request.method,
    url.pathname,
    url.search.slice(1).split("&").toSorted().join("&"),
    ...names.map((name) => `${name}:${(headers[name] ?? "").trim()}`),
    "",
    names.join(";"),
    sha256(request.body),
  ].join("\n");
  const scope = `${day}/${region}/${service}/aws4_request`;
  const toSign = ["AWS4-HMAC-SHA256", time, scope, sha256(canonical)].join("\n");
  const key = [day, region, service, "aws4_request"].reduce<string | Buffer>(
    (secret, part) => createHmac("sha256", secret).update(part).digest(),
    `AWS4${login.secretAccessKey}`,
  );
  const signature = createHmac("sha256", key).update(toSign).digest("hex");
  const credential = `AWS4-HMAC-SHA256 Credential=${login.accessKeyId}/${scope}`;
  return { ...headers, authorization: `${credential}, SignedHeaders=${names.join(";")}, Signature=${signature}` };
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
