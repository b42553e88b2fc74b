import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A self-signed certificate for `localhost`, made in `folder`; whoever trusts it trusts nothing else by that. */
export function makeCertificate(folder: string): {
  key: string;
  cert: string;
  keyPath: string;
  certPath: string;
} {
  const [keyPath, certPath] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const what = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"];
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", keyPath];
  execFileSync("openssl", ["req", "-x509", ...key, ...what, "-out", certPath], { stdio: "pipe" });
  return { key: readFileSync(keyPath, "utf8"), cert: readFileSync(certPath, "utf8"), keyPath, certPath };
}
