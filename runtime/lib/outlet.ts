/** What a relay needs of a response: Node's own, or one that somebody stands in front of. */
export interface Outlet {
  readonly headersSent: boolean;
  readonly destroyed: boolean;
  readonly writableFinished: boolean;
  setHeader(name: string, value: string): unknown;
  /** `headers`: names in lower case, each followed by its value. */
  writeHead(status: number, headers?: string[]): unknown;
  flushHeaders(): void;
  /** Whether more may be written at once; else `drain` tells when. */
  write(chunk: Buffer | string): boolean;
  end(rest?: Buffer | string): unknown;
  destroy(): unknown;
  on(event: "close", listener: () => void): unknown;
  off(event: "close", listener: () => void): unknown;
  once(event: "drain", listener: () => void): unknown;
}
