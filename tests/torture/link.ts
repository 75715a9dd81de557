/** A network link that can fail: TCP proxies between two programs, through which every byte of both directions goes. */
import { connect, createServer, type Server, type Socket } from "node:net";

/** bytes that wait on a slow or stalled way before the sender is made to wait */
const HELD_BYTES = 4 * 1024 * 1024;

/** Which way bytes go: from the end that was named first to the other, or back. */
export type Way = "there" | "back";

interface WayState {
  stalled: boolean;
  delayMs: number;
  /** added to the delay, at random */
  jitterMs: number;
}

/** Ends are programs, each of which may listen and connect. */
export class Link implements AsyncDisposable {
  #refused = false;
  readonly #ways: Record<Way, WayState> = {
    there: { stalled: false, delayMs: 0, jitterMs: 0 },
    back: { stalled: false, delayMs: 0, jitterMs: 0 },
  };
  readonly #servers: Server[] = [];
  readonly #pipes = new Set<Pipe>();

  constructor(readonly name: string) {}

  /**
   * A new loopback port, from which connections go on to `port`.
   * @param opener the way that the bytes of whoever connects take
   */
  async open(port: number, opener: Way = "there"): Promise<number> {
    const server = createServer((from) => this.#accept(from, port, opener));
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(0, "127.0.0.1", resolve);
    });
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error(`no port for ${this.name}`);
    return address.port;
  }

  /** Ends all connections. */
  cut(): void {
    for (const pipe of [...this.#pipes]) pipe.destroy();
  }

  /** Ends all connections, and each new one at once. */
  refuse(): void {
    this.#refused = true;
    this.cut();
  }

  /** Bytes wait on this way, of new connections too. */
  stall(way: Way): void {
    this.#ways[way].stalled = true;
  }

  delay(ms: number, jitterMs: number): void {
    for (const way of Object.values(this.#ways)) Object.assign(way, { delayMs: ms, jitterMs });
  }

  /** Lets everything through again; what was held arrives. */
  heal(): void {
    this.#refused = false;
    for (const way of Object.values(this.#ways)) Object.assign(way, { stalled: false, delayMs: 0, jitterMs: 0 });
    for (const pipe of this.#pipes) pipe.flush();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.refuse();
    await Promise.all(this.#servers.map((server) => new Promise((resolve) => server.close(resolve))));
  }

  #accept(from: Socket, port: number, opener: Way): void {
    if (this.#refused) {
      from.on("error", () => {/* the other end went first */});
      from.destroy();
      return;
    }
    const answers = opener === "there" ? "back" : "there";
    const pipe = new Pipe(from, connect(port, "127.0.0.1"), this.#ways[opener], this.#ways[answers]);
    this.#pipes.add(pipe);
    void pipe.ended.then(() => this.#pipes.delete(pipe));
  }
}

/** One connection of a link. */
class Pipe {
  readonly ended: Promise<void>;
  readonly #forward: Flow;
  readonly #backward: Flow;

  constructor(private readonly from: Socket, private readonly to: Socket, forward: WayState, backward: WayState) {
    this.#forward = new Flow(from, to, forward);
    this.#backward = new Flow(to, from, backward);
    this.ended = new Promise((resolve) => {
      for (const socket of [from, to]) {
        socket.setNoDelay(true);
        socket.on("error", () => {/* "close" follows */});
        socket.once("close", () => {
          this.destroy();
          resolve();
        });
      }
    });
  }

  flush(): void {
    this.#forward.flush();
    this.#backward.flush();
  }

  destroy(): void {
    this.#forward.stop();
    this.#backward.stop();
    this.from.destroy();
    this.to.destroy();
  }
}

/** One direction of a connection: what came in waits for its time, and never overtakes. */
class Flow {
  #held: { readonly chunk: Uint8Array; readonly due: number }[] = [];
  #bytes = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;

  constructor(private readonly from: Socket, private readonly to: Socket, private readonly way: WayState) {
    from.on("data", (chunk: Uint8Array) => this.#take(chunk));
    from.once("end", () => to.end());
  }

  /** Sends what is due. */
  flush(): void {
    clearTimeout(this.#timer);
    if (this.#stopped || this.way.stalled) return;
    const now = performance.now();
    while (this.#held.length > 0 && this.#held[0]!.due <= now) {
      const { chunk } = this.#held.shift()!;
      this.#bytes -= chunk.length;
      this.to.write(chunk);
    }
    if (this.#bytes < HELD_BYTES && this.from.isPaused()) this.from.resume();
    const next = this.#held[0];
    if (next !== undefined) this.#timer = setTimeout(() => this.flush(), next.due - now);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#held = [];
  }

  #take(chunk: Uint8Array): void {
    const { delayMs, jitterMs } = this.way;
    const before = this.#held.at(-1)?.due ?? 0;
    this.#held.push({ chunk, due: Math.max(before, performance.now() + delayMs + Math.random() * jitterMs) });
    this.#bytes += chunk.length;
    if (this.#bytes >= HELD_BYTES) this.from.pause();
    this.flush();
  }
}
