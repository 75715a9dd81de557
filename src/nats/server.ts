/** The embedded broker: a nats-server as a child process, with its store beside the database. */
import { statfs } from "node:fs/promises";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { EXIT, MarmotError } from "../errors.ts";
import type { Log } from "../runtime.ts";
import { type NatsServerBinary, requireNatsServer } from "./server_binary.ts";
import { embeddedNatsServer, unpackNatsServer } from "./server_embedded.ts";
import {
  type ClusterOptions,
  type Configuration,
  configurationText,
  type HostPort,
  hostPort,
  type LeafOptions,
  reachable,
} from "./server_configuration.ts";
import { AddressTakenError, explainStart, noteworthy } from "./server_explain.ts";
import {
  type BrokerFiles,
  brokerFiles,
  type BrokerMode,
  type BrokerState,
  clusterSecret,
  hasStreams,
  makeFolders,
  newServerName,
  readState,
  userPublicKey,
  writeConfiguration,
  writeState,
} from "./server_files.ts";
import { findHub } from "./server_leaf.ts";
import { endLeftovers } from "./server_leftovers.ts";
import { isStorageFailure, lastError, Repetitions, type ServerLine, ServerLogTail } from "./server_log.ts";
import { freePort, portHolder, probePort } from "./server_ports.ts";
import { removeRunFiles, ServerProcess } from "./server_process.ts";

const DEFAULT_LISTEN: HostPort = { host: "127.0.0.1", port: 4222 };
/** a port that was free a moment ago may be taken by the time the server listens */
const START_ATTEMPTS = 3;
const LOG_POLL_MS = 1_000;
const SAME_LINE_QUIET_MS = 600_000;
/** of its log, to find out why it ended */
const LINES_KEPT = 100;
const RESTART_DELAY_MS = 100;
const RESTART_DELAY_MAX_MS = 10_000;
/** a run this long was a good one: the next restart is quick again */
const GOOD_RUN_MS = 30_000;
/** JetStream needs some room to write its blocks again */
const ROOM_NEEDED_BYTES = 8 * 1024 * 1024;

export interface ServerOptions {
  /** `<database>-marmot`, absolute; its lock is held by the caller */
  readonly folder: string;
  /** --nats-server */
  readonly program?: string | undefined;
  /** --listen; default: 127.0.0.1:4222, or a free port when that one is busy, the same at each start */
  readonly listen?: HostPort | undefined;
  readonly cluster?: ClusterOptions | undefined;
  readonly leaf?: LeafOptions | undefined;
  /** where leaf nodes of others connect */
  readonly leafListen?: HostPort | undefined;
}

export interface EmbeddedServer {
  /** where this machine's clients reach it; stays the same over restarts */
  readonly url: string;
  /** an nkey user seed */
  readonly credentialsFile: string;
  readonly version: string;
  /** its process; undefined while it is down */
  readonly pid: number | undefined;
  /** how often it was started again */
  readonly restarts: number;
  /** Ends it, within a second. */
  stop(): Promise<void>;
}

/**
 * Resolves when it accepts clients (a single one has JetStream ready then; a cluster's comes with its majority). From
 * then on it is started again whenever it ends, until `stop`.
 * @throws MarmotError (broker, or refused) that says what to do
 */
export async function startServer(options: ServerOptions, log: Log): Promise<EmbeddedServer> {
  const binary = await serverProgram(options);
  const files = brokerFiles(options.folder);
  const prepared = await prepare(options, files, log).catch((error: unknown) => {
    if (error instanceof MarmotError) throw error;
    throw new MarmotError(
      `Cannot start the embedded broker: ${files.folder} can't be used: ${text(error)}. ` +
        "Make it writable for this user, with room on its disk.",
      EXIT.broker,
      { cause: error },
    );
  });
  const server = new SupervisedServer(binary, files, prepared, log);
  await server.start();
  return server;
}

/** The one asked for, else the one inside this Marmot, else one of this machine. */
async function serverProgram({ program, folder }: ServerOptions): Promise<NatsServerBinary> {
  if (program !== undefined) return await requireNatsServer(resolve(program));
  const embedded = embeddedNatsServer();
  return embedded === undefined ? await requireNatsServer() : await unpackNatsServer(embedded, folder);
}

/** Everything but the address. */
interface Prepared {
  readonly options: ServerOptions;
  readonly configuration: Omit<Configuration, "listen">;
  readonly mode: BrokerMode;
  readonly state: BrokerState | undefined;
}

async function prepare(options: ServerOptions, files: BrokerFiles, log: Log): Promise<Prepared> {
  await makeFolders(options.folder, files);
  await endLeftovers(files, log);
  const state = await readState(files);
  const mode = options.leaf !== undefined ? "leaf" : options.cluster !== undefined ? "cluster" : "single";
  if (state !== undefined && state.mode !== mode && await hasStreams(files)) throw modeChanged(files, state.mode, mode);
  let cluster: Configuration["cluster"];
  if (options.cluster !== undefined) {
    const { secret, made } = await clusterSecret(files);
    cluster = { ...options.cluster, secret };
    if (made) {
      log.info("Made the secret that all brokers of this cluster share. Copy it to the same place of the other nodes", {
        file: files.clusterSecret,
      });
    }
  }
  const hub = options.leaf === undefined ? undefined : await findHub(options.leaf, state?.hubDomain);
  const serverName = state?.serverName ?? newServerName();
  return {
    options,
    configuration: { serverName, publicKey: await userPublicKey(files), cluster, hub, leafListen: options.leafListen },
    mode,
    state,
  };
}

/** JetStream drops a single server's streams when it becomes part of a cluster, or hides them. */
function modeChanged(files: BrokerFiles, was: BrokerMode, wanted: BrokerMode): MarmotError {
  const names = { single: "a single broker", cluster: "part of a cluster", leaf: "a leaf node" };
  return new MarmotError(
    `Cannot run the embedded broker as ${names[wanted]}: it holds streams that it kept as ${
      names[was]
    }, which would be ` +
      `lost. Start it as before; or, once all nodes have caught up, stop them and move ${files.store} away.`,
    EXIT.refused,
  );
}

/** Why a run ended. */
type RunEnd =
  | { readonly kind: "ended"; readonly how: string; readonly reason: string }
  | { readonly kind: "storage"; readonly reason: string };

class SupervisedServer implements EmbeddedServer {
  readonly credentialsFile: string;
  readonly version: string;
  restarts = 0;
  #listen = DEFAULT_LISTEN;
  #process: ServerProcess | undefined;
  #pid: number | undefined;
  #tail: ServerLogTail | undefined;
  #supervision: Promise<void> | undefined;
  readonly #stopping = new AbortController();
  readonly #repetitions = new Repetitions(SAME_LINE_QUIET_MS);

  constructor(
    private readonly binary: NatsServerBinary,
    private readonly files: BrokerFiles,
    private readonly prepared: Prepared,
    private readonly log: Log,
  ) {
    this.credentialsFile = files.credentials;
    this.version = binary.version;
  }

  get url(): string {
    return `nats://${hostPort(reachable(this.#listen))}`;
  }

  get pid(): number | undefined {
    return this.#process?.running ? this.#pid : undefined;
  }

  async start(): Promise<void> {
    for (let attempt = 1; this.#pid === undefined; attempt++) {
      this.#listen = await this.#chooseAddress();
      try {
        await this.#launch();
      } catch (error) {
        const again = error instanceof AddressTakenError && this.prepared.options.listen === undefined;
        if (!again || attempt === START_ATTEMPTS) throw error;
      }
    }
    const { options, configuration, mode } = this.prepared;
    const port = options.listen === undefined ? this.#listen.port : undefined;
    await writeState(this.files, {
      serverName: configuration.serverName,
      mode,
      port,
      hubDomain: configuration.hub?.domain,
    });
    this.log.info("The embedded broker runs", { url: this.url, version: this.version, pid: this.pid });
    this.#supervision = this.#supervise();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#process?.stop();
    await this.#supervision;
    // One that was just being started again.
    await this.#process?.stop();
  }

  async #chooseAddress(): Promise<HostPort> {
    const asked = this.prepared.options.listen;
    const before = this.prepared.state?.port;
    const wanted = asked ?? { ...DEFAULT_LISTEN, port: before ?? DEFAULT_LISTEN.port };
    const state = await probePort(wanted);
    if (state === "free") return wanted;
    const holder = state === "EADDRINUSE" ? await portHolder(wanted) : "";
    if (asked !== undefined || state !== "EADDRINUSE") throw addressRefused(wanted, state, holder);
    const free = { ...wanted, port: await freePort(wanted.host) };
    const fields = { busy: hostPort(wanted), holder, now: hostPort(free) };
    if (before === undefined) {
      this.log.info("The default port is busy, so the embedded broker uses another one", fields);
    } else this.log.warn("The embedded broker's port is busy: other nodes have to use its new address", fields);
    return free;
  }

  /** One start. @throws MarmotError */
  async #launch(): Promise<void> {
    await removeRunFiles(this.files);
    await writeConfiguration(
      this.files,
      configurationText(this.files, { ...this.prepared.configuration, listen: this.#listen }),
    );
    const tail = await ServerLogTail.atEnd(this.files.log);
    const started = ServerProcess.start(this.binary.path, this.files);
    this.#process = started;
    this.#tail = tail;
    try {
      this.#pid = await started.ready(this.files, this.#stopping.signal);
    } catch (error) {
      await started.stop();
      const reason = lastError(await tail.read(), started.output);
      throw explainStart(
        reason === "" ? text(error) : reason,
        this.files,
        this.#listen,
        this.prepared.options.cluster?.listen,
      );
    }
  }

  /** Keeps it running until `stop`. */
  async #supervise(): Promise<void> {
    let delay = RESTART_DELAY_MS;
    while (!this.#stopping.signal.aborted) {
      const started = performance.now();
      const run = this.#process;
      const end = run === undefined ? undefined : await this.#watch(run);
      if (end === undefined) return;
      if (performance.now() - started > GOOD_RUN_MS) delay = RESTART_DELAY_MS;
      if (end.kind === "storage") {
        this.log.error(
          "The embedded broker cannot store changes. It goes on by itself once its disk takes them again",
          {
            folder: this.files.folder,
            reason: end.reason,
          },
        );
      } else {
        this.log.error("The embedded broker ended, and is started again", {
          how: end.how,
          reason: end.reason === "" ? undefined : end.reason,
        });
      }
      delay = await this.#restart(delay);
    }
  }

  /** Tries until it runs or is to stop. @returns the delay before the next restart */
  async #restart(firstDelay: number): Promise<number> {
    const down = performance.now();
    let delay = firstDelay;
    while (await pause(delay, this.#stopping.signal)) {
      delay = Math.min(delay * 2, RESTART_DELAY_MAX_MS);
      if (!await this.#hasRoom()) continue;
      try {
        await endLeftovers(this.files, this.log);
        await this.#launch();
        this.restarts++;
        const downMs = Math.round(performance.now() - down);
        this.log.info("The embedded broker runs again", { url: this.url, pid: this.pid, downMs });
        break;
      } catch (error) {
        if (this.#stopping.signal.aborted) break;
        this.log.warn("The embedded broker could not be started again; another try follows", {
          reason: text(error),
          waitMs: delay,
        });
      }
    }
    return delay;
  }

  /** Follows a run. @returns why it ended; undefined when that was asked for */
  async #watch(run: ServerProcess): Promise<RunEnd | undefined> {
    const lines: ServerLine[] = [];
    for (;;) {
      await pause(LOG_POLL_MS, run.gone);
      if (this.#stopping.signal.aborted) return undefined;
      const fresh = await this.#tail?.read().catch(() => []) ?? [];
      this.#tell(fresh);
      const failure = fresh.find(isStorageFailure);
      if (failure !== undefined) {
        await run.stop();
        return { kind: "storage", reason: failure.text };
      }
      lines.splice(0, lines.length, ...[...lines, ...fresh].slice(-LINES_KEPT));
      if (!run.running) return { kind: "ended", how: (await run.ended).how, reason: lastError(lines, run.output) };
    }
  }

  #tell(lines: readonly ServerLine[]): void {
    for (const line of lines) {
      const note = noteworthy(line, this.files);
      if (note === undefined || !this.#repetitions.isNew(note.message + line.text, performance.now())) continue;
      this.log[note.level](note.message, { server: line.text });
    }
  }

  async #hasRoom(): Promise<boolean> {
    const disk = await statfs(this.files.folder).catch(() => undefined);
    return disk === undefined || disk.bavail * disk.bsize >= ROOM_NEEDED_BYTES;
  }
}

/** @returns false, at once, when the signal is aborted */
async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  return await sleep(ms, true, { signal }).catch(() => false);
}

function addressRefused(wanted: HostPort, state: string, holder: string): MarmotError {
  const address = hostPort(wanted);
  const states: Record<string, string> = {
    EADDRINUSE: `${holder} listens there`,
    EACCES: "this user may not listen on that port",
    EADDRNOTAVAIL: "this machine has no such address",
    // what Deno makes of it
    EINVAL: "this machine has no such address",
    ENOTFOUND: "there is no host of that name",
  };
  return new MarmotError(
    `Cannot start the embedded broker on ${address}: ${states[state] ?? state}. ` +
      "Give a free address with --listen HOST:PORT, or use that server with --nats-url.",
    EXIT.broker,
  );
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
