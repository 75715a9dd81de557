/** A node: finds its database, its identity and its broker, and keeps them going until it is stopped. */
import { existsSync } from "node:fs";
import type { Broker, Lease } from "./broker.ts";
import type { Database } from "./database.ts";
import { DEFAULT_SHARDS } from "./defaults.ts";
import { BrokerUnreachableError, EXIT, MarmotError } from "./errors.ts";
import { hex } from "./hex.ts";
import {
  databaseProblem,
  findDatabase,
  holderOf,
  lockPlace,
  makeFolder,
  type NodePlace,
  openReplicated,
  type PlaceLock,
  removeIfEmpty,
} from "./place.ts";
import { Replication } from "./replication.ts";
import type { Log, Runtime } from "./runtime.ts";
import { type SqliteProblem, sqliteProblem } from "./sqlite/connection.ts";
import { hasOwnTables, readFact, writeFact } from "./sqlite/own_tables.ts";
import { journalMode, switchToWal, syncAtCheckpoints } from "./sqlite/pragmas.ts";
import type { NodeStatus } from "./status.ts";
import type { TablePatterns } from "./table_filter.ts";
import { deadline } from "./waiting.ts";

export type { NodePlace } from "./place.ts";

/** Pause before the broker, or a locked database, is tried again, ms */
const RETRY_MS = 1_000;
/** `marmot status` holds the place's lock for a moment: a start must not take it for another Marmot, ms */
const LOCK_WAIT_MS = 500;
/** How often a wait for the database is said, ms */
const SAY_WAITING_MS = 10_000;
/** After this a stop no longer waits for the broker's answers, ms; two seconds have to do for all of it */
const DRAIN_MS = 800;

/** What a start waits for, as a running node does: ending would help nobody. */
const PASSING: Partial<Record<SqliteProblem, string>> = {
  busy: "another process holds the database's lock",
  full: "the disk is full",
  "input/output": "the disk gave an error",
};

const DEFAULTS = {
  create: false,
  wal: false,
  backfill: false,
  rowidTables: false,
  include: [],
  exclude: [],
  shards: DEFAULT_SHARDS,
} as const;

/** What is left out is as on the command line: no switch set, all tables, one shard. */
export interface NodeOptions extends Partial<TablePatterns> {
  readonly dbPath: string;
  /** start with an empty database where there is no file */
  readonly create?: boolean;
  /** switch the database to WAL */
  readonly wal?: boolean;
  /** first start: publish the rows that are there */
  readonly backfill?: boolean;
  /** capture tables without a primary key by their rowid */
  readonly rowidTables?: boolean;
  /** as many as the broker has streams */
  readonly shards?: number;
  /** called again later when it rejects with BrokerUnreachableError */
  connect(place: NodePlace, signal: AbortSignal): Promise<Broker>;
  readonly runtime: Runtime;
  /** ends a start that is still waiting */
  readonly signal?: AbortSignal;
}

type Settings = NodeOptions & Required<Omit<NodeOptions, "signal">>;

/** A running node. */
export interface Node {
  /** 32 hex digits, made once and kept in the database */
  readonly id: string;
  readonly dbPath: string;
  status(): NodeStatus;
  /** resolves when all that was committed before the call was read back from the stream */
  settled(signal?: AbortSignal): Promise<void>;
  /** publishes what is captured if the broker is there, and lets go of everything */
  stop(): Promise<void>;
  /** resolves when the node can't go on by itself: another process has its identity */
  readonly failed: Promise<MarmotError>;
}

/**
 * Starts a node. On a database's first start the broker must be there, and nothing is written to the database before;
 * later the node captures at once and connects when it can.
 * @throws MarmotError
 */
export async function startNode(given: NodeOptions): Promise<Node> {
  const place = findDatabase(given.dbPath, given.create ?? DEFAULTS.create);
  makeFolder(place);
  const lock = lockPlace(place, LOCK_WAIT_MS);
  if (lock === undefined) {
    throw new MarmotError(
      `Cannot start on ${place.dbPath}: another Marmot runs on it. Stop that one first.`,
      EXIT.conflict,
    );
  }
  const running = new RunningNode(given, place, lock);
  try {
    await running.start();
    return running;
  } catch (error) {
    await running.stop();
    if (place.created) removeIfEmpty(place);
    throw databaseProblem(place.dbPath, error) ?? error;
  }
}

/** One process of a node; the simulation puts its own connection into it. */
export class RunningNode implements Node {
  id = "";
  /** see Capture */
  protected readonly frameBytes: number | undefined = undefined;
  private readonly options: Settings;
  readonly failed: Promise<MarmotError>;
  private readonly fail: (error: MarmotError) => void;
  private readonly ended = new AbortController();
  private readonly log: Log;
  private db: Database | undefined;
  private broker: Broker | undefined;
  private lease: Lease | undefined;
  private replication: Replication | undefined;
  private connecting: Promise<void> | undefined;
  private restarting: Promise<void> | undefined;
  private nonce = "";
  private stopping: Promise<void> | undefined;

  constructor(given: NodeOptions, private readonly place: NodePlace, private readonly lock: PlaceLock) {
    const options = this.options = { ...DEFAULTS, ...given };
    const { promise, resolve } = Promise.withResolvers<MarmotError>();
    this.failed = promise;
    this.fail = resolve;
    this.log = options.runtime.log;
    options.signal?.addEventListener("abort", () => this.ended.abort(options.signal!.reason), { once: true });
  }

  get dbPath(): string {
    return this.place.dbPath;
  }

  async start(): Promise<void> {
    const db = this.db = await this.possible(() => this.open());
    const first = await this.possible(() => !hasOwnTables(db));
    const broker = this.broker = first ? await this.connect() : undefined;
    await this.replicate(db);
    await this.firstConnection(broker);
  }

  protected open(): Database {
    return openReplicated(this.place);
  }

  /** A process of this node on the file as it is now. */
  private async replicate(db: Database): Promise<void> {
    const { runtime, shards } = this.options;
    await this.possible(() => this.requireShards(db));
    await this.possible(() => this.useJournal(db));
    const replication = new Replication({
      db,
      place: this.place,
      nonce: this.nonce = hex(runtime.random.bytes(8)),
      runtime,
      tables: this.options,
      shards,
      frameBytes: this.frameBytes,
      conflict: (reason) => this.conflict(reason),
      replaced: (reason) => this.restarting = this.startAnew(reason).catch((error) => this.failWith(error)),
    });
    await this.possible(() => replication.install());
    await this.possible(() => readFact(db, "shards") ?? writeFact(db, "shards", String(shards)));
    this.replication = replication;
    this.id = replication.nodeId;
    this.log.info("capturing", { node: this.id, db: this.place.dbPath, tables: replication.tableCount });
    void replication.run(this.ended.signal).catch((error) => this.failWith(error));
  }

  /** Whatever the file is now, it is this node's: the stream brings it up again (I8). */
  private async startAnew(reason: string): Promise<void> {
    this.log.warn("starting again on the database as it is now", { reason });
    await this.replication!.close();
    const { id } = this;
    await this.reopen();
    // without a lease, whoever waits for it connects when it is there
    if (this.broker === undefined || this.lease === undefined) return;
    if (this.id === id) this.replication!.connect(this.broker);
    else await this.takeOtherLease(this.broker);
  }

  /** The file is another node's, or one that was never replicated. */
  private async takeOtherLease(broker: Broker): Promise<void> {
    await this.lease?.release().catch((error) => this.log.debug("lease not released", { error: String(error) }));
    for (;;) {
      try {
        return await this.takeLease(broker);
      } catch (error) {
        if (!(error instanceof BrokerUnreachableError)) throw error;
        await this.options.runtime.clock.sleep(RETRY_MS, this.ended.signal);
      }
    }
  }

  /** The file may be gone, or half written, while somebody restores it: it is tried until it can be used. */
  private async reopen(): Promise<void> {
    for (let said = "";;) {
      this.db?.close();
      this.db = undefined;
      try {
        if (!existsSync(this.place.dbPath)) throw new MarmotError("The database file is gone.", EXIT.database);
        this.db = this.open();
        return await this.replicate(this.db);
      } catch (error) {
        this.ended.signal.throwIfAborted();
        const reason = (databaseProblem(this.place.dbPath, error) ?? error as Error).message;
        if (reason !== said) this.log.error("waiting for a database that can be used", { reason });
        said = reason;
        await this.options.runtime.clock.sleep(RETRY_MS, this.ended.signal);
      }
    }
  }

  private failWith(error: unknown): void {
    if (this.ended.signal.aborted) return;
    const known = databaseProblem(this.place.dbPath, error);
    this.fail(known ?? new MarmotError(`Cannot go on: ${String(error)}`, EXIT.failure, { cause: error }));
  }

  status(): NodeStatus {
    return this.replication!.status();
  }

  settled(signal: AbortSignal = this.ended.signal): Promise<void> {
    return this.replication!.settled(signal);
  }

  stop(): Promise<void> {
    return this.stopping ??= this.end();
  }

  private async end(): Promise<void> {
    await this.drain();
    this.ended.abort(new MarmotError("The node was stopped.", EXIT.ok));
    await this.restarting;
    const closing = this.replication?.close();
    await this.connecting?.catch(() => {});
    await this.lease?.release().catch((error) => this.log.debug("lease not released", { error: String(error) }));
    // rejects what still waits for an answer, so that it does not hold up the end
    await this.broker?.close().catch((error) => this.log.debug("broker not closed", { error: String(error) }));
    await closing;
    this.db?.close();
    this.lock.release();
  }

  private async drain(): Promise<void> {
    const limit = deadline((stop) => this.options.runtime.clock.sleep(DRAIN_MS, stop));
    try {
      await this.replication?.drain(limit.signal);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.log.info("what is pending is kept and published at the next start", { reason });
    } finally {
      limit.stop();
    }
  }

  /** A shard without a stream would never be published. */
  private async connect(): Promise<Broker> {
    const { shards } = this.options;
    const broker = await this.options.connect(this.place, this.ended.signal);
    if (broker.streams.length === shards) return broker;
    await broker.close();
    throw new MarmotError(
      `Cannot start with ${shards} shards: the broker was given ${broker.streams.length}. Give both the same.`,
      EXIT.usage,
    );
  }

  /** A refusal ends the start; an unreachable broker is tried again in the background. */
  private async firstConnection(broker?: Broker): Promise<void> {
    try {
      await this.join(broker ?? await this.connect());
    } catch (error) {
      if (!(error instanceof BrokerUnreachableError)) throw error;
      this.log.warn("broker is away: changes are captured and wait", { error: error.message });
      this.connecting = this.reconnect();
    }
  }

  private async reconnect(): Promise<void> {
    const { signal } = this.ended;
    for (let said = ""; !signal.aborted;) {
      try {
        await this.options.runtime.clock.sleep(RETRY_MS, signal);
        return await this.join(await this.connect());
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof MarmotError && error.exitCode === EXIT.conflict) return this.fail(error);
        const message = error instanceof Error ? error.message : String(error);
        if (message !== said) this.log.warn("broker is away: changes are captured and wait", { error: message });
        said = message;
      }
    }
  }

  private async join(broker: Broker): Promise<void> {
    this.broker = broker;
    try {
      await this.takeLease(broker);
    } catch (error) {
      this.broker = undefined;
      await broker.close().catch((cause) => this.log.debug("broker not closed", { error: String(cause) }));
      throw error;
    }
    this.log.info("connected", { broker: broker.description });
  }

  private async takeLease(broker: Broker): Promise<void> {
    const { id } = this;
    const lease = await broker.registry.lease(id, this.nonce, holderOf(this.place));
    this.lease = lease;
    // the file became another node's meanwhile
    if (id !== this.id) return await this.takeOtherLease(broker);
    lease.lost.addEventListener("abort", () => {
      if (lease === this.lease) this.fail(lease.lost.reason as MarmotError);
    }, { once: true });
    this.replication!.connect(broker);
  }

  private conflict(reason: string): void {
    this.fail(
      new MarmotError(
        `Cannot go on: another process publishes as this node (${reason}). A copied database keeps its identity: make copies with \`marmot clone\`.`,
        EXIT.conflict,
      ),
    );
  }

  /** Runs `action` once nothing is in the way that passes: another connection's lock, or a full disk. */
  private async possible<T>(action: () => T): Promise<T> {
    const { clock } = this.options.runtime;
    for (let saidAt = -Infinity;;) {
      try {
        return action();
      } catch (error) {
        const problem = sqliteProblem(error instanceof MarmotError ? error.cause : error);
        const reason = PASSING[problem];
        if (reason === undefined) throw error;
        if (clock.now() - saidAt >= SAY_WAITING_MS) {
          this.log.warn(`${reason}: waiting`, { db: this.place.dbPath });
          saidAt = clock.now();
        }
        await clock.sleep(problem === "busy" ? RETRY_MS / 10 : RETRY_MS, this.ended.signal);
      }
    }
  }

  private useJournal(db: Database): void {
    const mode = journalMode(db);
    if (mode !== "wal" && !this.options.wal) {
      this.log.warn(
        "the database uses a rollback journal: readers and writers wait for each other; --wal switches it to WAL",
        { mode },
      );
      return;
    }
    if (mode !== "wal") {
      switchToWal(db);
      this.log.info("switched the database to WAL", { before: mode });
    }
    syncAtCheckpoints(db);
  }

  /** The change logs' shards are baked into what was published. */
  private requireShards(db: Database): void {
    const known = hasOwnTables(db) ? readFact(db, "shards") : undefined;
    if (known !== undefined && Number(known) !== this.options.shards) {
      throw new MarmotError(
        `Cannot start with ${this.options.shards} shards: this database was replicated with ${known}. Give --shards ${known}.`,
        EXIT.refused,
      );
    }
  }
}
