/** nats.js's TCP transport for Node, with four of its faults mended. Also used by Deno and Bun: both have node:net. */
import type { Socket } from "node:net";
import { type ConnectionOptions, type NatsConnection, NatsConnectionImpl, type Server } from "@nats-io/transport-node";
import { setTransportFactory } from "@nats-io/transport-node";
// not exported by the package's index; the pin in package.json keeps it where it is
import { nodeResolveHost, NodeTransport } from "@nats-io/transport-node/lib/node_transport.js";

/** Nothing at all comes in so many seconds, though the server is asked each second: the link is dead. */
const SILENT_TICKS = 3;
const TICK_MS = 1_000;

/**
 * 1. It takes all listeners off a socket before destroying it. A reset that was already on its way (a server that
 *    refuses a password resets the connection) is then an 'error' event nobody listens to, which ends the process.
 * 2. It doesn't tell TLS which address it called, so a certificate is compared with "localhost" when that is an IP.
 * 3. It waits for the answer to a ping, which on a slow link stands behind megabytes of messages: here any byte is a sign
 *    of life. Counted in ticks, not in time: one late tick after a blocked event loop proves nothing.
 * 4. It closes a dead link only once all was written to it, which on one that takes nothing more never comes.
 */
class GuardedTransport extends NodeTransport {
  constructor() {
    super();
    let socket: Socket | undefined;
    Object.defineProperty(this, "socket", {
      get: () => socket,
      set: (value: Socket | undefined) => {
        socket = value;
        if (value !== undefined) guard(value);
      },
    });
  }

  override connect(server: Server & { tlsName: string }, options: ConnectionOptions): Promise<void> {
    if (!options.tls) return super.connect(server, options);
    // the host is node:tls's own option, which nats.js hands through
    const tls = { host: server.hostname, ...options.tls };
    return super.connect(server, { ...options, tls });
  }

  override setupHandlers(): void {
    super.setupHandlers();
    let silent = 0;
    this.socket.on("data", () => silent = 0);
    const watch = setInterval(() => {
      if (this.isClosed) clearInterval(watch);
      else if (++silent > SILENT_TICKS) this.disconnect();
    }, TICK_MS);
  }

  override disconnect(): void {
    this.socket?.destroy();
    super.disconnect();
  }
}

/** What the last listeners didn't want to hear is of no use to anyone: nats.js has given the socket up. */
function guard(socket: Socket): void {
  const ignore = (): void => {};
  const removeAll = socket.removeAllListeners.bind(socket);
  socket.removeAllListeners = (event?: string | symbol) => {
    // given undefined, node:events takes it for an event of that name
    if (event === undefined) removeAll();
    else removeAll(event);
    return socket.on("error", ignore);
  };
  socket.on("error", ignore);
}

/** As `connect` of @nats-io/transport-node. */
export function connectTransport(options: ConnectionOptions): Promise<NatsConnection> {
  setTransportFactory({ factory: () => new GuardedTransport(), dnsResolveFn: nodeResolveHost });
  return NatsConnectionImpl.connect(options);
}
