/** One connection to NATS that comes back by itself, and says whether it is there. */
import { jetstreamManager } from "@nats-io/jetstream";
import { errors, type NatsConnection, type NodeConnectionOptions } from "@nats-io/transport-node";
import { BrokerUnreachableError, EXIT, MarmotError } from "../errors.ts";
import type { Log } from "../runtime.ts";
import { type NatsAddress, parseNatsAddress } from "./address.ts";
import { authenticatorOf, checkTls, type NatsAuth, type NatsTls } from "./credentials.ts";
import {
  connectFailure,
  type Failure,
  JETSTREAM,
  jetStreamCode,
  jetStreamFailure,
  permissionDenied,
} from "./failure.ts";
import { Repetitions } from "./server_log.ts";
import { connectTransport } from "./transport.ts";
import { Turns } from "./turns.ts";

/** per-key TTL, which the lease needs, came with it; older servers ignore it without a word */
export const MIN_SERVER_VERSION = "2.11.0";
const CONNECT_TIMEOUT_MS = 5_000;
/** the answer is a sign of life; how long the link may be without any is a matter of the transport */
const PING_INTERVAL_MS = 1_000;
const MAX_PINGS_OUT = Number.MAX_SAFE_INTEGER;
const RECONNECT_WAIT_MS = 250;
const RECONNECT_JITTER_MS = 50;
/** a stop has two seconds for everything: what only tidies up at the server may take this much of them */
const FAREWELL_MS = 300;
/** below, a row would go in shreds of which each costs more than itself */
const MIN_MAX_PAYLOAD_BYTES = 16 * 1024;
/** a server that refuses says so at every try, several times a second */
const SAME_ERROR_QUIET_MS = 600_000;
/** how often, and how far apart, JetStream is asked for before it counts as missing: it may just be starting */
const JETSTREAM_ATTEMPTS = 4;
const JETSTREAM_RETRY_MS = 300;

export interface NatsOptions {
  /** at least one; `nats://`, `tls://` or `host:port` */
  readonly urls: readonly string[];
  readonly auth?: NatsAuth | undefined;
  readonly tls?: NatsTls | undefined;
  /** shown in the server's list of connections */
  readonly name?: string | undefined;
}

/** A connection and its state. While it is away, nothing must be published: nats.js would lose it silently. */
export class NatsLink {
  readonly turns = new Turns();
  #connected = true;
  #closed = false;
  readonly #listeners = new Set<(connected: boolean) => void>();
  readonly #rejects = new Set<(reason: Error) => void>();
  #maxPayload: number;

  constructor(readonly connection: NatsConnection, readonly description: string, readonly log: Log) {
    this.#maxPayload = connection.info?.max_payload ?? 0;
    void this.#follow();
  }

  get connected(): boolean {
    return this.#connected && !this.#closed;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** bytes of headers and data that a message may have, as the server last connected to allows */
  get maxPayload(): number {
    this.#maxPayload = this.connection.info?.max_payload ?? this.#maxPayload;
    return this.#maxPayload;
  }

  /** Called at each change. @returns a function that ends it */
  onChange(listener: (connected: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Runs a request. Rejects with BrokerUnreachableError at once when the connection is away, and as soon as it is lost:
   * the answer could not come any more.
   */
  request<T>(operation: () => Promise<T>): Promise<T> {
    if (!this.connected) return Promise.reject(this.#away());
    return new Promise((resolve, reject) => {
      this.#rejects.add(reject);
      operation().then(resolve, reject).finally(() => this.#rejects.delete(reject));
    });
  }

  /** A request that only tidies up at the server, which forgets by itself: waits for it, but not long; never rejects. */
  async farewell(operation: () => Promise<unknown>): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<void>((resolve) => timer = setTimeout(resolve, FAREWELL_MS));
    await Promise.race([this.request(operation).catch(() => {}), timeout]);
    clearTimeout(timer);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#set(false);
    await this.connection.close();
  }

  #away(): BrokerUnreachableError {
    return new BrokerUnreachableError(
      `Cannot reach the ${this.description}: the connection is ${this.#closed ? "closed" : "lost"}. ` +
        "Marmot keeps trying; check that the server runs.",
    );
  }

  /** The end is told even when the connection was away before: somebody may wait for its return. */
  #set(connected: boolean): void {
    if (connected === this.#connected && !this.#closed) return;
    this.#connected = connected;
    if (!connected) {
      const lost = this.#away();
      for (const reject of this.#rejects) reject(lost);
      this.#rejects.clear();
    }
    for (const listener of [...this.#listeners]) listener(this.connected);
  }

  async #follow(): Promise<void> {
    const server = this.description;
    let errors = new Repetitions(SAME_ERROR_QUIET_MS);
    for await (const status of this.connection.status()) {
      if (this.#closed) return;
      if (status.type === "disconnect" && this.#connected) {
        this.#set(false);
        this.log.warn("Connection to NATS lost, trying to get it back", { server });
      } else if (status.type === "reconnect" && !this.#connected) {
        errors = new Repetitions(SAME_ERROR_QUIET_MS);
        this.log.info("Connection to NATS is back", { server });
        this.#set(true);
      } else if (status.type === "close") {
        this.#set(false);
      } else if (status.type === "error" && errors.isNew(status.error.message, performance.now())) {
        this.log.warn("NATS server reports an error", { server, error: status.error.message });
      }
    }
  }
}

/**
 * Connects to the first server of the list that works.
 * @throws MarmotError (usage) for what can't be right, BrokerUnreachableError when trying again may help, MarmotError
 * (broker) when a server refuses: credentials, certificate, version, no JetStream. No message holds a secret.
 */
export async function connectNats(options: NatsOptions, log: Log): Promise<NatsLink> {
  const addresses = options.urls.map(parseNatsAddress);
  if (addresses.length === 0) throw new MarmotError("Cannot connect to NATS: no address. Give --nats-url.", EXIT.usage);
  const connection = await connectFirst(addresses, natsOptions(options, addresses));
  try {
    const server = connection.getServer();
    requireVersion(connection.info?.version ?? "unknown", server);
    requirePayload(connection.info?.max_payload ?? 0, server);
    await requireJetStream(connection, server);
    return new NatsLink(connection, `nats-server ${connection.info?.version} at ${server}`, log);
  } catch (error) {
    await connection.close();
    throw error;
  }
}

function natsOptions(options: NatsOptions, addresses: readonly NatsAddress[]): NodeConnectionOptions {
  const authenticator = authenticatorOf(options.auth, addresses);
  const tls = options.tls ?? (addresses.some((address) => address.tls) ? {} : undefined);
  if (tls !== undefined) checkTls(tls);
  return {
    name: options.name ?? "marmot",
    timeout: CONNECT_TIMEOUT_MS,
    pingInterval: PING_INTERVAL_MS,
    maxPingOut: MAX_PINGS_OUT,
    maxReconnectAttempts: -1,
    reconnectTimeWait: RECONNECT_WAIT_MS,
    reconnectJitter: RECONNECT_JITTER_MS,
    reconnectJitterTLS: RECONNECT_JITTER_MS,
    // a server that refuses us for a while (a changed password, say) must not end the process
    ignoreAuthErrorAbort: true,
    noAsyncTraces: true,
    ...(authenticator === undefined ? {} : { authenticator }),
    ...(tls === undefined ? {} : { tls }),
  };
}

/** nats.js tells only the last server's error, so each is tried alone; the one that works gets to know the others. */
async function connectFirst(
  addresses: readonly NatsAddress[],
  options: NodeConnectionOptions,
): Promise<NatsConnection> {
  const failures: { hostPort: string; failure: Failure; cause: unknown }[] = [];
  for (const { hostPort } of addresses) {
    try {
      const connection = await connectTransport({ ...options, servers: [hostPort] });
      if (addresses.length > 1) connection.setServers(addresses.map((address) => address.hostPort));
      return connection;
    } catch (cause) {
      failures.push({ hostPort, failure: connectFailure(cause), cause });
    }
  }
  const states = failures.map(({ hostPort, failure }) => `${hostPort}: ${failure.state}`).join("; ");
  const worst = failures.find(({ failure }) => failure.refused) ?? failures[0];
  const message = `Cannot connect to NATS at ${states}. ${worst?.failure.advice}`;
  if (worst?.failure.refused) throw new MarmotError(message, EXIT.broker, { cause: worst.cause });
  throw new BrokerUnreachableError(message, { cause: worst?.cause });
}

function requireVersion(version: string, server: string): void {
  const [major, minor] = version.split(".").map(Number);
  const [wantedMajor = 0, wantedMinor = 0] = MIN_SERVER_VERSION.split(".").map(Number);
  if (major !== undefined && minor !== undefined) {
    if (major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)) return;
  }
  throw new MarmotError(
    `Cannot use the NATS server at ${server}: it is version ${version}, and ${MIN_SERVER_VERSION} or newer is wanted. ` +
      "Upgrade it, or leave out --nats-url to run the embedded one.",
    EXIT.broker,
  );
}

function requirePayload(bytes: number, server: string): void {
  if (bytes >= MIN_MAX_PAYLOAD_BYTES) return;
  throw new MarmotError(
    `Cannot use the NATS server at ${server}: its messages may have ${bytes} bytes, and ${MIN_MAX_PAYLOAD_BYTES} are ` +
      "wanted at least. Raise its max_payload.",
    EXIT.broker,
  );
}

async function requireJetStream(connection: NatsConnection, server: string): Promise<void> {
  const verb = `use JetStream of the NATS server at ${server}`;
  for (let attempt = 1;; attempt++) {
    try {
      await (await jetstreamManager(connection, { checkAPI: false })).getAccountInfo();
      return;
    } catch (error) {
      if (permissionDenied(error) !== undefined) throw jetStreamFailure(verb, error);
      if (attempt >= JETSTREAM_ATTEMPTS) {
        throw isMissing(error) ? noJetStream(connection, server, error) : jetStreamFailure(verb, error);
      }
      await new Promise((resolve) => setTimeout(resolve, JETSTREAM_RETRY_MS));
    }
  }
}

function isMissing(error: unknown): boolean {
  const code = jetStreamCode(error);
  if (code === JETSTREAM.notEnabled || code === JETSTREAM.notEnabledForAccount) return true;
  for (let e: unknown = error; e instanceof Error; e = e.cause) {
    if (e instanceof errors.NoRespondersError || e.name === "JetStreamNotEnabled") return true;
  }
  return false;
}

function noJetStream(connection: NatsConnection, server: string, cause: unknown): MarmotError {
  return new MarmotError(
    `Cannot use the NATS server at ${server} (version ${connection.info?.version}): it has no JetStream for this account. ` +
      `Start nats-server ${MIN_SERVER_VERSION} or newer with JetStream enabled (nats-server -js -sd DIRECTORY), ` +
      "or leave out --nats-url to run the embedded one.",
    EXIT.broker,
    { cause },
  );
}
