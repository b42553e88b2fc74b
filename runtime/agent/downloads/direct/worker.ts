import { setDefaultCACertificates } from "node:tls";
import { parentPort, workerData } from "node:worker_threads";
import { Blocks, sharedMemory } from "./blocks.ts";
import { TransferThread } from "./transfer-thread.ts";
import { post, type FromWorker, type ToWorker } from "./protocol.ts";

const { ca } = workerData as { ca: string[] }; // what DirectEngine gives
// A thread has trust of its own: this one trusts what the agent's does.
setDefaultCACertificates(ca);

const memory = sharedMemory();
const thread = new TransferThread({
  memory,
  blocks: new Blocks(memory),
  tell: (message: FromWorker) => {
    if (parentPort !== null) post(parentPort, message);
  },
});
parentPort?.on("message", (message: ToWorker) => {
  if (message.kind === "stop") void thread.stop().then(() => parentPort?.close());
  else thread.handle(message);
});
