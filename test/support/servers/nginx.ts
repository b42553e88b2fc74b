import { execFileSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "../folders.ts";
import { freePort } from "./free-port.ts";
import { startServer } from "./process.ts";

/** nginx, serving the files of a folder. */
export interface Nginx extends AsyncDisposable {
  readonly url: string;
  /** The certificate, in PEM, of the authority that signed the server's; undefined without TLS. */
  readonly ca: string | undefined;
}

/**
 * Starts nginx on the files under `root`. A folder of it with a file `.denied` is answered with 403.
 * With `tls` it has a certificate for 127.0.0.1 and localhost of an authority that nobody trusts yet.
 */
export async function nginx(root: string, { tls = false }: { tls?: boolean } = {}): Promise<Nginx> {
  await using scope = new AsyncDisposableStack();
  const folder = scope.use(await temporaryFolder());
  if (tls) makeCertificates(folder.path);
  // nginx cannot be given 0.
  const port = await freePort();
  const config = join(folder.path, "nginx.conf");
  await writeFile(config, configuration({ folder: folder.path, root, port, tls }));
  scope.use(
    await startServer({
      command: "nginx",
      args: ["-p", folder.path, "-c", config, "-e", "stderr"],
      // The notice that comes after the sockets are open.
      ready: /start worker process|using the "[a-z]+" event method/,
    }),
  );
  const ca = tls ? await readFile(join(folder.path, "ca.pem"), "utf8") : undefined;
  const running = scope.move();
  return {
    url: `${tls ? "https" : "http"}://127.0.0.1:${port}`,
    ca,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

function configuration({ folder, root, port, tls }: { folder: string; root: string; port: number; tls: boolean }) {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path tmp;`);
  return `
daemon off;
# One process: killing it leaves none behind.
master_process off;
pid ${folder}/pid;
error_log stderr notice;
events {}
http {
  access_log off;
  ${temporary.join(" ")}
  default_type application/octet-stream;
  server {
    listen 127.0.0.1:${port}${tls ? " ssl" : ""};
    ${tls ? `ssl_certificate ${folder}/server.pem; ssl_certificate_key ${folder}/server.key;` : ""}
    root ${root};
    location ~ ^/([^/]+)/ {
      if (-f $document_root/$1/.denied) { return 403; }
    }
  }
}
`;
}

/** An authority that lives as long as the folder, and the server's certificate. */
function makeCertificates(folder: string): void {
  makeCertificate(folder, ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA"]);
  makeCertificate(
    folder,
    ["-keyout", "server.key", "-out", "server.pem", "-subj", "/CN=localhost"].concat(
      ["-CA", "ca.pem", "-CAkey", "ca.key"],
      ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"],
    ),
  );
}

function makeCertificate(cwd: string, about: readonly string[]): void {
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  execFileSync("openssl", ["req", "-x509", "-days", "2", ...newKey, ...about], { cwd, stdio: "pipe" });
}
