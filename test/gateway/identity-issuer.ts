import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, SignJWT, type CryptoKey, type JWTPayload } from "jose";

/** A signing key of the issuer. */
export interface SigningKey {
  readonly kid: string;
  readonly alg: string;
  readonly privateKey: CryptoKey;
  readonly publicKey: CryptoKey;
}

export async function signingKey(kid: string, alg = "ES256"): Promise<SigningKey> {
  return { kid, alg, ...(await generateKeyPair(alg, { extractable: true })) };
}

/** A real issuer: an HTTP server with a discovery document and keys. */
export interface TestIssuer extends AsyncDisposable {
  readonly url: string;
  /** What it publishes. */
  keys: SigningKey[];
  /** How often its keys were asked for. */
  keyRequests: number;
  /** Answers something else for the keys, or for everything when `path` is absent. */
  breakWith: { readonly path?: string; readonly answer: RequestListener } | undefined;
  sign(claims: JWTPayload, key?: SigningKey): Promise<string>;
}

export async function testIssuer(): Promise<TestIssuer> {
  const server = createServer((incoming, outgoing) => {
    const { breakWith } = issuer;
    if (incoming.url === "/keys") issuer.keyRequests += 1;
    if (breakWith !== undefined && (breakWith.path ?? incoming.url) === incoming.url) {
      breakWith.answer(incoming, outgoing);
      return;
    }
    if (incoming.url === "/.well-known/openid-configuration") {
      outgoing.end(JSON.stringify({ issuer: issuer.url, jwks_uri: `${issuer.url}/keys` }));
      return;
    }
    void Promise.all(
      issuer.keys.map(async ({ kid, alg, publicKey }) => ({ ...(await exportJWK(publicKey)), kid, alg })),
    ).then((keys) => outgoing.end(JSON.stringify({ keys })));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  const first = await signingKey("first");
  const issuer: TestIssuer = {
    url: `http://127.0.0.1:${port}`,
    keys: [first],
    keyRequests: 0,
    breakWith: undefined,
    sign: (claims, key = first) =>
      new SignJWT({ iss: issuer.url, aud: "penstock", sub: "user-1", tenant: "acme", ...claims })
        .setProtectedHeader({ alg: key.alg, kid: key.kid })
        .setIssuedAt()
        .setExpirationTime(claims.exp ?? "5 minutes")
        .sign(key.privateKey),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return issuer;
}
