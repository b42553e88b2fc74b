import { setDefaultCACertificates } from "node:tls";
import type { Block, Blocks } from "./blocks.ts";
import { Connection } from "./connection.ts";
import { DiskFile } from "./disk-file.ts";
import { HashQueue } from "./hash-queue.ts";
import type { FileOrder, FromWorker, Outcome, RangeOrder, ToWorker } from "./protocol.ts";

/** How often the bytes that came in are told. */
const tellEveryMs = 50;

interface OpenFile {
  readonly order: FileOrder;
  disk: Promise<DiskFile> | undefined;
}

/** A range under way. */
interface Range {
  readonly order: RangeOrder;
  readonly file: OpenFile;
  /** Bytes before it were handed over to be written. */
  position: number;
  readonly writes: Promise<void>[];
  diskFailure: Outcome | undefined;
  connection: Connection | undefined;
  cancelled: boolean;
}

/** What the transfer thread does: ranges from sockets to disk and to the hash thread. */
export class TransferThread {
  readonly #blocks: Blocks;
  readonly #tell: (message: FromWorker) => void;
  readonly #hashes: HashQueue;
  readonly #files = new Map<number, OpenFile>();
  readonly #ranges = new Map<number, Range>();
  /** Open connections that wait for a range, by origin. */
  readonly #idle = new Map<string, Connection[]>();
  readonly #counts = new Map<number, number>();
  readonly #timer = setInterval(() => this.#tellBytes(), tellEveryMs);

  constructor({ memory, blocks, tell }: { memory: WebAssembly.Memory; blocks: Blocks; tell: (m: FromWorker) => void }) {
    this.#blocks = blocks;
    this.#tell = tell;
    const onDigest = (file: number, value: string): void => {
      tell({ kind: "hashed", file, bytes: this.#files.get(file)?.order.sizeBytes ?? 0 });
      tell({ kind: "digest", file, value });
    };
    this.#hashes = new HashQueue({ memory, blocks, onDigest });
  }

  handle(message: Exclude<ToWorker, { kind: "stop" }>): void {
    switch (message.kind) {
      case "file":
        this.#files.set(message.file, { order: message, disk: undefined });
        this.#hashes.open(message);
        break;
      case "trust":
        setDefaultCACertificates(message.ca);
        break;
      case "range":
        void this.#start(message);
        break;
      case "cancel":
        this.#cancel(this.#ranges.get(message.id));
        break;
      case "digest":
        this.#hashes.digest(message.file);
        break;
      case "close":
        void this.#close(message.file);
        break;
      case "forget":
        this.#hashes.forget(message.file);
        void this.#close(message.file);
        this.#files.delete(message.file);
        break;
    }
  }

  /** Ends everything: sockets at once, files once their last write is through. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    for (const connection of [...this.#idle.values()].flat()) connection.destroy();
    const ranges = [...this.#ranges.values()];
    for (const range of ranges) this.#cancel(range);
    await Promise.all(ranges.flatMap(({ writes }) => writes));
    await this.#hashes.stop();
    await Promise.all([...this.#files.keys()].map((file) => this.#close(file)));
  }

  async #start(order: RangeOrder): Promise<void> {
    const file = this.#files.get(order.file);
    if (file === undefined) throw new TypeError("a range of a file that was not opened");
    const range: Range = {
      order,
      file,
      position: order.start,
      writes: [],
      diskFailure: undefined,
      connection: undefined,
      cancelled: false,
    };
    this.#ranges.set(order.id, range);
    const outcome = await this.#run(range).catch(failed);
    await Promise.all(range.writes);
    this.#ranges.delete(order.id);
    this.#counts.delete(order.id);
    this.#tell({ kind: "end", id: order.id, position: range.position, outcome: range.diskFailure ?? outcome });
  }

  async #run(range: Range): Promise<Outcome> {
    range.file.disk ??= DiskFile.open(range.file.order.path);
    const disk = await range.file.disk;
    const { origin } = new URL(range.order.url);
    for (;;) {
      if (range.cancelled) return { kind: "broken", what: "it was cancelled" };
      const connection = this.#connect(origin);
      range.connection = connection;
      const reused = connection.served > 0;
      let heard = false;
      const outcome = await connection.fetch({
        order: range.order,
        sizeBytes: range.file.order.sizeBytes,
        onPiece: (piece) => this.#land(range, disk, piece),
        onBytes: (bytes) => {
          heard = true;
          this.#counts.set(range.order.id, (this.#counts.get(range.order.id) ?? 0) + bytes);
        },
      });
      range.connection = undefined;
      if (connection.isOpen) this.#idle.get(origin)?.push(connection);
      // Servers close idle connections whenever they like, also at the moment that we use one.
      if (outcome.kind !== "broken" || !reused || heard || outcome.what.startsWith("nothing came")) return outcome;
    }
  }

  #connect(origin: string): Connection {
    const idle = this.#idle.get(origin) ?? [];
    this.#idle.set(origin, idle);
    for (let known = idle.pop(); known !== undefined; known = idle.pop()) if (known.isOpen) return known;
    return new Connection(new URL(origin), this.#blocks);
  }

  #land(range: Range, disk: DiskFile, piece: { start: number; end: number; block: Block }): void {
    const { start, end, block } = piece;
    const { file } = range.order;
    range.position = end;
    this.#hashes.arrived(file, piece);
    const written = disk.write(this.#blocks.view(block, 0, end - start), start).then(
      () => this.#hashes.written(file, start),
      (thrown: unknown) => {
        range.diskFailure ??= failed(thrown);
        range.connection?.destroy();
      },
    );
    range.writes.push(written.finally(() => this.#blocks.release(block)));
  }

  #cancel(range: Range | undefined): void {
    if (range === undefined) return;
    range.cancelled = true;
    range.connection?.destroy();
  }

  async #close(file: number): Promise<void> {
    const open = this.#files.get(file);
    const disk = open?.disk;
    if (open !== undefined) open.disk = undefined;
    await disk?.then((opened) => opened.close()).catch(() => undefined);
  }

  #tellBytes(): void {
    for (const progress of this.#hashes.progress()) this.#tell({ kind: "hashed", ...progress });
    if (this.#counts.size === 0) return;
    this.#tell({ kind: "bytes", counts: [...this.#counts] });
    this.#counts.clear();
  }
}

function failed(thrown: unknown): Outcome {
  const code = thrown instanceof Error && "code" in thrown && typeof thrown.code === "string" ? thrown.code : "EIO";
  return { kind: "disk", code, message: thrown instanceof Error ? thrown.message : String(thrown) };
}
