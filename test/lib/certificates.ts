import { generateKeyPairSync, sign, type KeyObject } from "node:crypto";

/** A certificate and its key, in PEM. */
export interface TestCertificate {
  readonly cert: string;
  readonly key: string;
}

export interface CertificateAuthority extends TestCertificate {
  /** A certificate of this authority for `localhost`. */
  issue(name: string): TestCertificate;
}

/** A fresh certificate authority, made here since Node makes keys but no certificates. */
export function certificateAuthority(name = "test authority"): CertificateAuthority {
  const { publicKey, privateKey } = newKey();
  const cert = certificate({ subject: name, issuer: name, publicKey, signer: privateKey, isAuthority: true });
  return {
    cert,
    key: pem(privateKey),
    issue(subject) {
      const own = newKey();
      const issued = certificate({
        subject,
        issuer: name,
        publicKey: own.publicKey,
        signer: privateKey,
        isAuthority: false,
      });
      return { cert: issued, key: pem(own.privateKey) };
    },
  };
}

function newKey() {
  return generateKeyPairSync("ec", { namedCurve: "P-256" });
}

function pem(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}

interface CertificateFields {
  readonly subject: string;
  readonly issuer: string;
  readonly publicKey: KeyObject;
  readonly signer: KeyObject;
  readonly isAuthority: boolean;
}

/** X.509 version 3 (RFC 5280, section 4.1), valid from yesterday until tomorrow, signed with ECDSA. */
function certificate({ subject, issuer, publicKey, signer, isAuthority }: CertificateFields): string {
  const ecdsaWithSha256 = sequence(oid("2a8648ce3d040302"));
  const version3 = der(0xa0, der(0x02, Buffer.of(2)));
  const serial = der(0x02, Buffer.from([1, ...Buffer.from(String(Math.random()).slice(2, 10))]));
  const dayMs = 86_400_000;
  const validity = sequence(utcTime(Date.now() - dayMs), utcTime(Date.now() + dayMs));
  const constraints = extension("551d13", isAuthority ? sequence(der(0x01, Buffer.of(0xff))) : sequence());
  const names = extension("551d11", sequence(der(0x82, Buffer.from("localhost"))));
  const body = sequence(
    version3,
    serial,
    ecdsaWithSha256,
    commonName(issuer),
    validity,
    commonName(subject),
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(constraints, names)),
  );
  const signature = der(0x03, Buffer.concat([Buffer.of(0), sign("sha256", body, signer)]));
  const text = sequence(body, ecdsaWithSha256, signature).toString("base64");
  return `-----BEGIN CERTIFICATE-----\n${text.match(/.{1,64}/g)?.join("\n")}\n-----END CERTIFICATE-----\n`;
}

function der(tag: number, content: Buffer): Buffer {
  const size = content.length;
  const length = size < 128 ? [size] : size < 256 ? [0x81, size] : [0x82, size >> 8, size & 0xff];
  return Buffer.concat([Buffer.of(tag, ...length), content]);
}

function sequence(...parts: Buffer[]): Buffer {
  return der(0x30, Buffer.concat(parts));
}

function oid(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, "hex"));
}

function commonName(name: string): Buffer {
  return sequence(der(0x31, sequence(oid("550403"), der(0x0c, Buffer.from(name)))));
}

function extension(id: string, value: Buffer): Buffer {
  return sequence(oid(id), der(0x04, value));
}

function utcTime(time: number): Buffer {
  const digits = new Date(time).toISOString().replaceAll(/\D/g, "");
  return der(0x17, Buffer.from(`${digits.slice(2, 14)}Z`));
}
