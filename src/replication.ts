/**
 * Moves changes along the path, for all shards of a node: one loop that scans, publishes and applies in short steps, so
 * that neither side waits long for the other and the application waits for neither.
 */
import { statSync } from "node:fs";
import { Applier } from "./apply.ts";
import type { Broker } from "./broker.ts";
import { Capture } from "./capture.ts";
import type { ChangeStream } from "./change_stream.ts";
import type { Database, Statement } from "./database.ts";
import { hex } from "./hex.ts";
import type { NodePlace } from "./place.ts";
import { Placements } from "./placements.ts";
import { Publisher } from "./publish.ts";
import type { Clock, Runtime } from "./runtime.ts";
import { sqliteProblem } from "./sqlite/connection.ts";
import { schemaVersion } from "./sqlite/schema.ts";
import { install, type Installed } from "./sqlite/install.ts";
import { fold } from "./sqlite/quote.ts";
import { Targets } from "./sqlite/targets.ts";
import { type NodeStatus, writeStatus } from "./status.ts";
import { digestOf, Subscriber } from "./subscribe.ts";
import type { TablePatterns } from "./table_filter.ts";

/** Looked at this often when no event tells of a commit, ms */
const POLL_MS = 200;
/** A commit writes to the WAL first, and is visible a moment after that event: looked at this often, for this long, ms */
const EVENT_STEP_MS = 1;
const EVENT_MS = 8;
/** While the application writes, apply transactions begin at least this far apart, ms */
const GATHER_MS = 20;
/** The application counts as writing for this long after a commit, ms */
const WRITING_MS = 200;
/** Pause after a step that met a lock, ms */
const BUSY_MS = 3;
/** A lock that is held this long is said, ms */
const LOCK_LIMIT_MS = 10_000;
/** The schema is taken up when it did not change for this long, or after the limit all the same, ms */
const SCHEMA_QUIET_MS = 30;
const SCHEMA_LIMIT_MS = 1_000;
/** Pause after a step that met trouble which does not pass at once (a full disk), ms */
const TROUBLE_MS = 1_000;
/** Parked tables are tried again without a change of the schema, ms */
const PARKED_RETRY_MS = 30_000;
/** status.json is written at most this often, ms */
const STATUS_MS = 500;
/** A transaction above this is said, ms */
const LONG_APPLY_MS = 1_000;
/** The stream's size is compared with its limit this often, ms */
const SIZE_CHECK_MS = 60_000;
const SIZE_WARNING = 0.8;

export interface ReplicationOptions {
  readonly db: Database;
  readonly place: NodePlace;
  readonly nonce: string;
  readonly runtime: Runtime;
  readonly tables: TablePatterns & { readonly rowidTables: boolean; readonly backfill: boolean };
  readonly shards: number;
  readonly conflict: (reason: string) => void;
  /** the file is not the one this process left: it must start anew on it */
  readonly replaced: (reason: string) => void;
}

/** Ends the loop; the node starts anew. */
class ReplacedError extends Error {}

interface Shard {
  readonly publisher: Publisher;
  readonly subscriber: Subscriber;
}

export class Replication {
  private readonly capture: Capture;
  private readonly dataVersion: Statement;
  private applier: Applier | undefined;
  private installed: Installed | undefined;
  private targets: Targets | undefined;
  private broker: Broker | undefined;
  private connected = false;
  private shards: Shard[] = [];
  private readonly receiving: Promise<void>[] = [];
  private readonly ended = new AbortController();
  private running: Promise<void> | undefined;
  private woken = Promise.withResolvers<void>();
  private lastDataVersion = -1;
  private scanWanted = true;
  /** a file was written to just now: its commit may become visible a moment later */
  private eventUntil = 0;
  /** how many scans there were */
  private scans = 0;
  private waitingForScan = 0;
  private schemaSince: { version: number; quiet: number; first: number } | undefined;
  private lockedSince: number | undefined;
  private readAfter = 0;
  private applyAfter = 0;
  private writingUntil = 0;
  private parkedAfter = 0;
  private parkedWanted = true;
  private statusAfter = 0;
  private statusText = "";
  private stops: string[] = [];
  private inode: bigint;
  private readonly settling = new Set<Map<string, number>>();
  private readonly noted = new Set<string>();
  private readonly placements: Placements;

  constructor(private readonly options: ReplicationOptions) {
    this.capture = new Capture(options.db, options.shards);
    this.placements = new Placements(options.shards);
    this.dataVersion = options.db.prepare("PRAGMA data_version");
    this.inode = inodeOf(options.place.dbPath);
  }

  get nodeId(): string {
    return this.installed!.nodeId;
  }

  get tableCount(): number {
    return this.installed!.captured.size;
  }

  /** Puts change logs and triggers right, and takes up the schema. Throws what SQLite throws. */
  install(): void {
    const { db, tables, runtime } = this.options;
    const installed = install(db, {
      patterns: tables,
      rowidTables: tables.rowidTables,
      backfill: tables.backfill,
      newNodeId: () => hex(runtime.random.bytes(16)),
      scanned: (table) => this.capture.scanned(fold(table)),
    });
    this.installed = installed;
    for (const { level, message, table, reason } of installed.notes) {
      const key = `${message}\n${table}\n${reason}`;
      if (this.noted.has(key)) continue;
      this.noted.add(key);
      this.options.runtime.log[level](message, { table, reason });
    }
    const targets = new Targets(db, installed, tables);
    this.applier ??= this.makeApplier(installed.nodeId);
    this.applier.useSchema(targets);
    this.targets = targets;
    this.takeUp();
    this.scanWanted = true;
    this.parkedWanted = true;
  }

  private takeUp(): void {
    if (this.capture.useSchema(this.targets!.logs, this.placements.all, this.installed!.version)) {
      for (const { publisher } of this.shards) publisher.restart("a table was renamed or dropped");
    }
  }

  /** The broker is there: streams are read and written from now on. */
  connect(broker: Broker): void {
    const { runtime } = this.options;
    this.broker = broker;
    const wake = () => this.wake();
    this.shards = broker.streams.map((stream, shard) => ({
      publisher: new Publisher({
        stream,
        origin: this.nodeId,
        nonce: this.options.nonce,
        clock: runtime.clock,
        log: runtime.log,
        wake,
        rewind: () => this.capture.restart(shard),
        conflict: (other) => this.options.conflict(`process ${other}`),
      }),
      subscriber: new Subscriber(
        { stream, clock: runtime.clock, log: runtime.log, wake },
        this.applier!.cursor(shard),
        this.applier!.allSeen(shard),
      ),
    }));
    for (const { subscriber } of this.shards) this.receiving.push(subscriber.run(this.ended.signal));
    broker.onConnection((connected) => {
      if (connected !== this.connected) {
        runtime.log.info(connected ? "broker is there" : "broker is away", { broker: broker.description });
      }
      this.connected = connected;
      if (!connected) { for (const { publisher } of this.shards) publisher.restart("the connection was lost"); }
      this.wake();
    });
    this.receiving.push(watchSizes(broker.streams, runtime, this.ended.signal));
  }

  /** Runs until aborted. */
  run(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => this.ended.abort(signal.reason), { once: true });
    return this.running = this.loop(this.ended.signal);
  }

  async close(): Promise<void> {
    this.ended.abort(new Error("closed"));
    await this.running?.catch(() => {});
    await Promise.all(this.receiving.map((receiving) => receiving.catch(() => {})));
  }

  /** Scans once more, and waits until what is captured was sent and answered, or for `limitMs`. */
  async drain(limitMs: number): Promise<void> {
    if (this.running === undefined || !this.connected || this.ended.signal.aborted) return;
    const { clock } = this.options.runtime;
    const until = clock.now() + limitMs;
    const limit = AbortSignal.any([this.ended.signal, AbortSignal.timeout(limitMs)]);
    try {
      await this.settled(limit);
    } catch (error) {
      if (clock.now() < until && !limit.aborted) throw error;
      this.options.runtime.log.info(
        "stopped before everything pending came back: it is kept and published at the next start",
      );
    }
  }

  /** Resolves when all that was committed before was read back from the stream. */
  async settled(signal: AbortSignal): Promise<void> {
    const left = AbortSignal.any([signal, this.ended.signal]);
    // a scan that begins now sees every table, and every entry, that was committed before
    const scan = this.scans + 1;
    this.scanWanted = true;
    this.wake();
    this.waitingForScan++;
    try {
      while (this.scans < scan) await aborting(this.woken.promise, left);
    } finally {
      this.waitingForScan--;
    }
    const targets = new Map([...this.targets!.logs.keys()].map((table) => [table, this.capture.scanned(table)]));
    for (const [table, seq] of targets) if (seq === 0) targets.delete(table);
    this.settling.add(targets);
    try {
      while (targets.size > 0) await aborting(this.woken.promise, left);
    } finally {
      this.settling.delete(targets);
    }
  }

  status(): NodeStatus {
    const { trouble } = this.placements;
    const stops = trouble === undefined ? this.stops : [...this.stops, trouble];
    return {
      id: this.nodeId,
      pid: process.pid,
      connected: this.connected,
      broker: this.broker?.description ?? null,
      shards: this.shards.map(({ publisher, subscriber }, shard) => {
        const cursor = this.applier!.cursor(shard).sequence;
        const stream = this.broker!.streams[shard]!.name;
        const stopped = subscriber.stopped?.reason ?? null;
        return { stream, cursor, end: Math.max(cursor, subscriber.received), publisher: publisher.kind, stopped };
      }),
      stops,
      parked: this.applier!.parkedTables,
      excluded: this.installed!.excluded,
    };
  }

  private wake(): void {
    this.woken.resolve();
    this.woken = Promise.withResolvers();
  }

  private async loop(signal: AbortSignal): Promise<void> {
    const { clock, watch } = this.options.runtime;
    const watcher = watch(this.options.place.dbPath);
    const watching = this.follow(watcher, signal);
    try {
      while (!signal.aborted) {
        const woken = this.woken.promise;
        const pause = this.step();
        if (pause === 0) await clock.sleep(0, signal);
        else await sleepUnless(clock, pause, woken, signal);
      }
    } catch (error) {
      if (error instanceof ReplacedError) this.options.replaced(error.message);
      else if (!signal.aborted) throw error;
    } finally {
      watcher.close();
      await watching;
    }
  }

  private async follow(watcher: ReturnType<Runtime["watch"]>, signal: AbortSignal): Promise<void> {
    const { clock } = this.options.runtime;
    try {
      while (!signal.aborted) {
        if (await watcher.wait(POLL_MS, signal)) this.eventUntil = clock.now() + EVENT_MS;
        this.wake();
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** One round. @returns how long nothing needs to be done, ms; 0 when there is more to do */
  private step(): number {
    const now = this.options.runtime.clock.now();
    try {
      let pause = this.look(now);
      pause = Math.min(pause, this.publish(now));
      pause = Math.min(pause, this.apply(now));
      pause = Math.min(pause, this.layParked(now));
      this.stops = [];
      this.lockedSince = undefined;
      this.reportStatus(now);
      return pause;
    } catch (error) {
      return this.trouble(error, now);
    }
  }

  /** A lock passes; anything else is said, shown in `status`, and tried again. */
  private trouble(error: unknown, now: number): number {
    if (error instanceof ReplacedError) throw error;
    const problem = sqliteProblem(error);
    if (problem === "busy") return this.locked(now);
    if (problem === "schema changed") return 0;
    const reason = `${error instanceof Error ? error.message : String(error)}`;
    if (!this.stops.includes(reason)) {
      const stack = problem === "other" && error instanceof Error ? error.stack : undefined;
      this.options.runtime.log.error("cannot go on for now", { reason, problem, stack });
    }
    this.stops = [reason];
    this.reportStatus(now);
    return TROUBLE_MS;
  }

  /** A lock passes; one that stays is said. */
  private locked(now: number): number {
    this.lockedSince ??= now;
    if (now - this.lockedSince >= LOCK_LIMIT_MS && this.stops.length === 0) {
      const reason = "another process holds the database's lock: nothing is captured or applied until it lets go";
      this.options.runtime.log.warn(reason, { seconds: Math.round((now - this.lockedSince) / 1000) });
      this.stops = [reason];
      this.reportStatus(now);
    }
    return BUSY_MS;
  }

  /** Finds out whether somebody else committed, and scans if so. */
  private look(now: number): number {
    this.checkFile();
    const version = Number(this.dataVersion.get()![0]);
    if (version !== this.lastDataVersion) {
      if (this.lastDataVersion !== -1) this.writingUntil = now + WRITING_MS;
      if (this.lastDataVersion !== -1 && !this.applier!.isSameFile()) {
        this.restartProcess("the database went back to an older copy");
      }
      this.lastDataVersion = version;
      this.scanWanted = true;
    }
    if (!this.scanWanted) return now < this.eventUntil ? EVENT_STEP_MS : Infinity;
    if (now < this.readAfter) return this.readAfter - now;
    const scan = this.capture.scan();
    if (scan.kind === "schema changed") return this.followSchema(now);
    this.schemaSince = undefined;
    this.scanWanted = false;
    this.scans++;
    if (this.waitingForScan > 0) this.wake();
    if (this.capture.cutBacklog > 0) {
      this.options.runtime.log.warn("a large backlog piled up while Marmot was down: it is published in pieces", {
        changes: this.capture.cutBacklog,
      });
      this.capture.cutBacklog = 0;
    }
    this.pauseReading(now);
    return Infinity;
  }

  /** A migration changes the schema step by step: we follow once it is quiet, and are not in the way of its next step. */
  private followSchema(now: number): number {
    const version = schemaVersion(this.options.db);
    if (this.schemaSince?.version !== version) {
      this.schemaSince = { version, quiet: now, first: this.schemaSince?.first ?? now };
    }
    const due = Math.min(this.schemaSince.quiet + SCHEMA_QUIET_MS, this.schemaSince.first + SCHEMA_LIMIT_MS);
    if (now < due) return due - now;
    this.install();
    return 0;
  }

  /** A reader that is always there keeps the WAL from being checkpointed. */
  private pauseReading(since: number): void {
    const now = this.options.runtime.clock.now();
    this.readAfter = now + (now - since);
  }

  private publish(now: number): number {
    let pause = Infinity;
    if (!this.placements.complete(this.installed!) || this.placements.trouble !== undefined) {
      this.place();
      return this.shards.length === 0 ? pause : TROUBLE_MS;
    }
    for (const [shard, { publisher, subscriber }] of this.shards.entries()) {
      if (subscriber.stopped !== undefined) continue;
      const cursor = this.applier!.cursor(shard).sequence;
      publisher.step(cursor, this.applier!.seen(shard, this.nodeId));
      if (publisher.kind !== "ready") pause = Math.min(pause, POLL_MS);
      if (!publisher.open) continue;
      if (now < this.readAfter && this.readAfter - now > 1) {
        pause = Math.min(pause, this.readAfter - now);
        continue;
      }
      const start = this.options.runtime.clock.now();
      const part = this.capture.read(shard, cursor);
      if (part === undefined) continue;
      publisher.send(part);
      this.pauseReading(start);
      pause = 0;
    }
    return pause;
  }

  private place(): void {
    if (this.broker === undefined || !this.connected) return;
    this.placements.ask(this.broker.registry, this.installed!).then(
      (answered) => answered && (this.takeUp(), this.wake()),
      (error) => this.options.runtime.log.debug("placements are not known yet", { error: String(error) }),
    );
  }

  private apply(now: number): number {
    let pause = Infinity;
    for (const [shard, { publisher, subscriber }] of this.shards.entries()) {
      if (subscriber.queue.length === 0) continue;
      if (now < this.applyAfter) return Math.min(pause, this.applyAfter - now);
      const applied = this.applier!.apply(shard, subscriber.queue);
      if (applied.kind === "schema changed") {
        this.scanWanted = true;
        return SCHEMA_QUIET_MS;
      } else if (applied.kind === "replaced") this.restartProcess("the database went back to an older copy");
      else {
        for (const delivery of subscriber.queue.slice(0, applied.messages)) publisher.observe(delivery);
        subscriber.passed(applied.messages);
        if (applied.ms > LONG_APPLY_MS) {
          this.options.runtime.log.info("a large batch was applied", {
            changes: applied.changes,
            ms: Math.round(applied.ms),
          });
        }
      }
      if (now < this.writingUntil) this.applyAfter = now + GATHER_MS;
      pause = 0;
    }
    return pause;
  }

  private layParked(now: number): number {
    if (this.applier!.parkedTables.length === 0) return Infinity;
    if (now >= this.parkedAfter) {
      this.parkedAfter = now + PARKED_RETRY_MS;
      this.applier!.retryFailing();
      this.parkedWanted = true;
    }
    if (!this.parkedWanted) return Infinity;
    this.parkedWanted = this.applier!.layParked();
    return this.parkedWanted ? 0 : Infinity;
  }

  private checkFile(): void {
    const inode = inodeOf(this.options.place.dbPath);
    if (inode === this.inode) return;
    this.restartProcess("the database file was replaced");
  }

  private restartProcess(why: string): never {
    throw new ReplacedError(why);
  }

  private reportStatus(now: number): void {
    if (now < this.statusAfter) return;
    const status = this.status();
    const text = JSON.stringify(status);
    if (text === this.statusText) return;
    this.statusText = text;
    this.statusAfter = now + STATUS_MS;
    writeStatus(this.options.place, status);
  }

  private makeApplier(nodeId: string): Applier {
    const { db, nonce, runtime, shards } = this.options;
    return new Applier({
      db,
      nodeId,
      nonce,
      clock: runtime.clock,
      digest: digestOf,
      acknowledged: (table, highest, lowest) => this.acknowledged(table, highest, lowest),
      capturedNullKeys: () => this.capture.nullKeys,
      notice: (table, reason, parked) => {
        if (parked) runtime.log.warn("table is parked: its changes wait", { table, reason });
        else runtime.log.info("changes are skipped", { table, reason });
      },
    }, shards);
  }

  private acknowledged(table: string, highest: number, lowest: number): void {
    this.capture.acknowledged(table, highest, lowest);
    for (const targets of this.settling) {
      const target = Math.min(targets.get(table) ?? 0, highest);
      if (target === 0 || lowest > target) targets.delete(table);
      else targets.set(table, target);
      if (targets.size === 0) this.wake();
    }
  }
}

/** Warns when a stream is nearly as large as it may be: then its oldest messages go. */
async function watchSizes(
  streams: readonly ChangeStream[],
  { clock, log }: Runtime,
  signal: AbortSignal,
): Promise<void> {
  const warned = new Set<string>();
  while (!signal.aborted) {
    for (const stream of streams) {
      try {
        const { bytes, maxBytes } = await stream.state();
        const full = maxBytes > 0 && bytes > maxBytes * SIZE_WARNING;
        if (full && !warned.has(stream.name)) {
          log.warn(
            "stream is nearly full: its oldest messages will be dropped, and a node that has not read them must be cloned anew",
            {
              stream: stream.name,
              bytes,
              maxBytes,
            },
          );
        }
        if (full) warned.add(stream.name);
        else warned.delete(stream.name);
      } catch (error) {
        log.debug("stream size is not known", { stream: stream.name, error: String(error) });
      }
    }
    await clock.sleep(SIZE_CHECK_MS, signal).catch(() => {});
  }
}

function inodeOf(path: string): bigint {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino ?? 0n;
}

/** Sleeps for `ms`, but wakes up early with `woken`. */
async function sleepUnless(clock: Clock, ms: number, woken: Promise<void>, signal: AbortSignal): Promise<void> {
  const stop = new AbortController();
  const linked = AbortSignal.any([signal, stop.signal]);
  try {
    await Promise.race([woken, clock.sleep(Math.min(ms, POLL_MS), linked)]);
  } finally {
    stop.abort();
  }
}

function aborting(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener("abort", abort));
}
