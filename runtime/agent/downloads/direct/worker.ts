import { parentPort } from "node:worker_threads";
import { Blocks, sharedMemory } from "./blocks.ts";
import { TransferThread } from "./transfer-thread.ts";
import { post, type FromWorker, type ToWorker } from "./protocol.ts";

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
