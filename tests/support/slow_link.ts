/** A network link of so many bytes a second each way: a TCP proxy in front of a program on this machine. */
import { connect, createServer, type Socket } from "node:net";

const TICK_MS = 20;
const HELD_BYTES = 64 * 1024;

export class SlowLink implements AsyncDisposable {
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((opened) => this.#join(opened, connect(this.target, "127.0.0.1")));
  #dead = new Set<Socket>();

  private constructor(private readonly target: number, private readonly bytesPerSecond: number) {}

  static async to(target: number, bytesPerSecond: number): Promise<SlowLink> {
    const link = new SlowLink(target, bytesPerSecond);
    await new Promise<void>((resolve) => link.#server.listen(0, "127.0.0.1", resolve));
    return link;
  }

  get url(): string {
    const address = this.#server.address();
    return `nats://127.0.0.1:${typeof address === "object" ? address?.port : address}`;
  }

  /** Connections that are there take and give nothing any more, and don't end; new ones do as before. */
  goDead(): void {
    this.#dead = new Set(this.#sockets);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(one: Socket, other: Socket): void {
    for (const [from, to] of [[one, other], [other, one]] as const) {
      this.#sockets.add(from);
      from.setNoDelay(true);
      let held = Buffer.alloc(0);
      from.on("data", (bytes) => {
        held = Buffer.concat([held, bytes as Buffer]);
        if (held.length > HELD_BYTES) from.pause();
      });
      const timer = setInterval(() => {
        if (this.#dead.has(from)) return from.pause();
        const part = held.subarray(0, this.bytesPerSecond * TICK_MS / 1_000);
        held = held.subarray(part.length);
        if (part.length > 0) to.write(part);
        if (held.length < HELD_BYTES) from.resume();
      }, TICK_MS);
      from.on("error", () => {/* the end follows */});
      from.on("close", () => {
        clearInterval(timer);
        this.#sockets.delete(from);
        if (!this.#dead.has(from)) to.destroy();
      });
    }
  }
}
