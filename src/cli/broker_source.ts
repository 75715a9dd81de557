/** Where a node's broker comes from: a NATS server of the user's, or the embedded one, which starts when it is needed. */
import { hostname } from "node:os";
import type { Broker } from "../broker.ts";
import type { Config } from "../config.ts";
import type { EffectiveConfig } from "../config/effective.ts";
import { parseHostPort } from "../config/values.ts";
import type { NodePlace } from "../place.ts";
import { type BrokerOptions, connectBroker } from "../nats/broker.ts";
import type { NatsAuth } from "../nats/credentials.ts";
import { type EmbeddedServer, type ServerOptions, startServer } from "../nats/server.ts";
import type { Log } from "../runtime.ts";
import { joinCommands, type JoinInfo, joinInfo, rememberJoin } from "./join.ts";
import { natsAuth } from "./read_config.ts";

const EVERY_ADDRESS = ["0.0.0.0", "::"];

export interface BrokerSource {
  /** Rejects with BrokerUnreachableError when the same call may succeed later, with another MarmotError when it won't. */
  readonly connect: (place: NodePlace, signal: AbortSignal) => Promise<Broker>;
  /** Stops the embedded broker, if it runs. */
  readonly close: () => Promise<void>;
}

export function brokerSource(effective: EffectiveConfig, log: Log): BrokerSource {
  const announce = announcement(log);
  if (effective.config.natsUrl.length === 0) {
    const embedded = new EmbeddedSource(effective, log, announce);
    return { connect: (place, signal) => embedded.connect(place, signal), close: () => embedded.close() };
  }
  return {
    connect: (place, signal) => connectExternal(effective, place, announce, log, signal),
    close: () => Promise.resolve(),
  };
}

type Announce = (place: NodePlace, info: JoinInfo) => void;

/** Says, once, how another node joins, and remembers it for `marmot join-command`. */
function announcement(log: Log): Announce {
  let done = false;
  return ({ dbPath, folder }, info) => {
    try {
      rememberJoin(folder, info);
    } catch (error) {
      // a full disk must not keep the node from its broker
      log.warn("`marmot join-command` will not know how to join this node: it can't be written", {
        error: String(error),
      });
    }
    if (!done) log.info(`Another node joins this one with\n${joinCommands(dbPath, info)}`);
    done = true;
  };
}

async function connectExternal(
  effective: EffectiveConfig,
  place: NodePlace,
  announce: Announce,
  log: Log,
  signal: AbortSignal,
): Promise<Broker> {
  const { config } = effective;
  const options = { ...brokerOptions(config), urls: config.natsUrl, auth: await natsAuth(effective), tls: tls(config) };
  const broker = await connectUnlessAborted(options, log, signal);
  announce(place, joinInfo(effective));
  return broker;
}

class EmbeddedSource {
  #server: EmbeddedServer | undefined;
  #starting: Promise<EmbeddedServer> | undefined;

  constructor(
    private readonly effective: EffectiveConfig,
    private readonly log: Log,
    private readonly announce: Announce,
  ) {}

  async connect(place: NodePlace, signal: AbortSignal): Promise<Broker> {
    const { config } = this.effective;
    const server = this.#server ?? await unlessAborted(signal, this.#start(place), () => {});
    const auth: NatsAuth = { kind: "credentials", file: server.credentialsFile };
    const broker = await connectUnlessAborted({ ...brokerOptions(config), urls: [server.url], auth }, this.log, signal);
    const { credentialsFile } = server;
    this.announce(place, joinInfo(this.effective, { url: urlForOthers(server.url, config), credentialsFile }));
    return {
      streams: broker.streams,
      registry: broker.registry,
      description: `embedded ${broker.description}`,
      onConnection: (listener) => broker.onConnection(listener),
      close: async () => {
        await broker.close();
        await this.close();
      },
    };
  }

  /** Once; a start that failed may be tried again. */
  async #start({ folder }: NodePlace): Promise<EmbeddedServer> {
    this.#starting ??= startServer(serverOptions(this.effective.config, folder), this.log);
    try {
      return this.#server = await this.#starting;
    } finally {
      this.#starting = undefined;
    }
  }

  async close(): Promise<void> {
    const server = this.#server ?? await this.#starting?.catch(() => undefined);
    this.#server = undefined;
    await server?.stop();
  }
}

function brokerOptions(config: Config): Omit<BrokerOptions, "urls"> {
  const { streamPrefix, subjectPrefix, shards, replicas, retentionAge, retentionBytes, updateStreams } = config;
  return {
    streamPrefix,
    subjectPrefix,
    shards,
    replicas,
    retentionAgeMs: retentionAge,
    retentionBytes,
    updateStreams,
  };
}

function tls({ natsCa, natsCert, natsKey }: Config): BrokerOptions["tls"] {
  if (natsCa === undefined && natsCert === undefined) return undefined;
  return {
    ...(natsCa === undefined ? {} : { caFile: natsCa }),
    ...(natsCert === undefined ? {} : { certFile: natsCert }),
    ...(natsKey === undefined ? {} : { keyFile: natsKey }),
  };
}

function serverOptions(config: Config, folder: string): ServerOptions {
  const address = (text: string | undefined) => text === undefined ? undefined : parseHostPort(text);
  const clusterListen = address(config.clusterAddr);
  return {
    folder,
    program: config.natsServer,
    listen: address(config.listen),
    cluster: clusterListen && { name: config.clusterName, listen: clusterListen, peers: config.clusterPeers },
    leaf: config.leafUrl.length === 0 ? undefined : { urls: config.leafUrl, credentialsFile: config.natsCredentials },
    leafListen: address(config.leafAddr),
  };
}

/** A broker that listens on every address is reached by the name of this machine. */
function urlForOthers(url: string, { listen }: Config): string {
  const asked = listen === undefined ? undefined : parseHostPort(listen);
  return asked !== undefined && EVERY_ADDRESS.includes(asked.host) ? `nats://${hostname()}:${asked.port}` : url;
}

function connectUnlessAborted(options: BrokerOptions, log: Log, signal: AbortSignal): Promise<Broker> {
  signal.throwIfAborted();
  return unlessAborted(signal, connectBroker(options, log), (late) => void late.close());
}

/** Rejects with the signal's reason when it is aborted first; `discard` then gets what came too late. */
function unlessAborted<T>(signal: AbortSignal, work: Promise<T>, discard: (late: T) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      reject(signal.reason);
      work.then(discard, () => {});
    };
    signal.addEventListener("abort", abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
