/** nats.js's TCP transport for Node, with two of its faults mended. Also used by Deno and Bun: both have node:net. */
import type { Socket } from "node:net";
import { type ConnectionOptions, type NatsConnection, NatsConnectionImpl, type Server } from "@nats-io/transport-node";
import { setTransportFactory } from "@nats-io/transport-node";
// not exported by the package's index; the pin in package.json keeps it where it is
import { nodeResolveHost, NodeTransport } from "@nats-io/transport-node/lib/node_transport.js";

/**
 * 1. It takes all listeners off a socket before destroying it. A reset that was already on its way (a server that
 *    refuses a password resets the connection) is then an 'error' event nobody listens to, which ends the process.
 * 2. It doesn't tell TLS which address it called, so a certificate is compared with "localhost" when that is an IP.
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
