import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import { errors } from "undici";

/** Hears how a body leaves. One of the last two is called, once, unless the upload is given up. */
export interface UploadEvents {
  onProgress(): void;
  onSent(): void;
  onFailed(error: Error): void;
}

/**
 * Sends a body as fast as the other side takes it, and no other number of bytes than `length`. Dispose gives it up: what is
 * left of the body is destroyed.
 */
export function upload(
  socket: Socket,
  { body, length }: { readonly body: Readable; readonly length: number | "chunked" },
  events: UploadEvents,
): Disposable {
  let sent = 0;
  let isOver = false;
  const end = (then: () => void): void => {
    if (isOver) return;
    isOver = true;
    socket.off("drain", onDrain);
    then();
  };
  const fail = (error: Error): void => end(() => events.onFailed(error));
  const onDrain = (): void => void body.resume();
  socket.on("drain", onDrain);
  body.on("data", (chunk: Buffer) => {
    if (isOver || chunk.length === 0) return;
    sent += chunk.length;
    if (length !== "chunked" && sent > length) {
      fail(new errors.RequestContentLengthMismatchError());
      return;
    }
    events.onProgress();
    if (!writeChunk(socket, chunk, length === "chunked")) body.pause();
  });
  body.once("end", () => {
    if (length !== "chunked" && sent !== length) fail(new errors.RequestContentLengthMismatchError());
    end(() => {
      if (length === "chunked") socket.write("0\r\n\r\n", "latin1");
      events.onSent();
    });
  });
  body.on("error", fail);
  body.once("close", () => fail(new Error("the request's body was closed before its end")));
  return { [Symbol.dispose]: () => end(() => void body.destroy()) };
}

/** Whether the socket takes more at once. */
function writeChunk(socket: Socket, chunk: Buffer, inChunks: boolean): boolean {
  if (!inChunks) return socket.write(chunk);
  socket.cork();
  socket.write(`${chunk.length.toString(16)}\r\n`, "latin1");
  socket.write(chunk);
  const takesMore = socket.write("\r\n", "latin1");
  socket.uncork();
  return takesMore;
}
