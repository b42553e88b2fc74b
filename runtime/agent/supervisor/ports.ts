import { createServer, type Server } from "node:net";
import type { EnginePorts } from "../../engines/engine.ts";

/**
 * Loopback ports that are free now, all different. Another process may take one first: the engine then fails and is
 * started again.
 */
export async function freePorts(): Promise<EnginePorts> {
  const servers = await Promise.all([listen(), listen(), listen()]);
  const [api, admin, metrics] = await Promise.all(servers.map(portOf));
  if (api === undefined || admin === undefined || metrics === undefined) throw new Error("three servers, three ports");
  return { api, admin, metrics };
}

async function listen(): Promise<Server> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen({ host: "127.0.0.1", port: 0 }, resolve);
  await promise;
  return server;
}

async function portOf(server: Server): Promise<number> {
  const address = server.address();
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => resolve());
  await promise;
  if (address === null || typeof address === "string") throw new Error("a TCP server has an address with a port");
  return address.port;
}
