/**
 * Moves changes along the path, for all shards of a node: one loop that scans, publishes and applies in short steps, so
 * that neither side waits long for the other and the application waits for neither.
 */
import { Applier } from "./apply.ts";
import type { Broker } from "./broker.ts";
import { Capture } from "./capture.ts";
import type { ChangeStream } from "./change_stream.ts";
import type { Database } from "./database.ts";
import { hex } from "./hex.ts";
import { Observation, ReplacedError } from "./observation.ts";
import { AcknowledgingPace, nextTransaction, paceFor } from "./pace.ts";
import type { NodePlace } from "./place.ts";
import { Placements } from "./placements.ts";
import { Publisher } from "./publish.ts";
import { fromTurn } from "./queues.ts";
import type { Runtime } from "./runtime.ts";
import { install, type Installed, missesCapture } from "./sqlite/install.ts";
import { fold } from "./sqlite/quote.ts";
import { Targets } from "./sqlite/targets.ts";
import { Settling } from "./settling.ts";
import { type NodeStatus, StatusFile } from "./status.ts";
import { digestOf, Subscriber } from "./subscribe.ts";
import { watchSizes } from "./stream_size.ts";
import type { TablePatterns } from "./table_filter.ts";
import { Trouble } from "./trouble.ts";
import { Alarm, sleepUnless, untilAborted } from "./waiting.ts";

/** A publisher that is not ready is looked after this often, ms */
const POLL_MS = 250;
/** Pause before placements are asked for again, ms */
const PLACEMENT_RETRY_MS = 1_000;
/** Parked tables are tried again without a change of the schema, ms */
const PARKED_RETRY_MS = 30_000;
/** A transaction above this is said, ms */
const LONG_APPLY_MS = 1_000;

const CUT_BACKLOG = "a large backlog piled up while Marmot was down: it is published in pieces";
const WENT_BACK = "the database went back to an older copy";

export interface ReplicationOptions {
  readonly db: Database;
  readonly place: NodePlace;
  readonly nonce: string;
  readonly runtime: Runtime;
  readonly tables: TablePatterns & { readonly rowidTables: boolean; readonly backfill: boolean };
  readonly shards: number;
  /** see Capture */
  readonly frameBytes: number | undefined;
  readonly conflict: (reason: string) => void;
  /** the file is not the one this process left: it must start anew on it */
  readonly replaced: (reason: string) => void;
}

interface Shard {
  readonly publisher: Publisher;
  readonly subscriber: Subscriber;
}

export class Replication {
  private readonly capture: Capture;
  private applier: Applier | undefined;
  private installed: Installed | undefined;
  /** what install left, until all of it is taken up: logs may have other names than capture and apply know */
  private untaken: Installed | undefined;
  private targets: Targets | undefined;
  private broker: Broker | undefined;
  private connected = false;
  private shards: Shard[] = [];
  private readonly receiving: Promise<void>[] = [];
  /** last sequences, as they were known last */
  private readonly streamEnds = new Map<ChangeStream, number>();
  private readonly ended = new AbortController();
  private running: Promise<void> | undefined;
  private readonly alarm = new Alarm();
  private scanWanted = true;
  /** is the file still the one this process left, since the last commit of another connection? */
  private isChecked = true;
  private readonly acknowledging = new AcknowledgingPace();
  private applyAfter = 0;
  /** the shard that applies next, if it has something */
  private turn = 0;
  /** in steps since the last scan, ms */
  private spent = 0;
  private parkedAfter = 0;
  private parkedWanted = true;
  private readonly statusFile: StatusFile;
  private readonly settling = new Settling();
  private readonly noted = new Set<string>();
  private readonly placements: Placements;
  private readonly observation: Observation;
  private readonly trouble: Trouble;

  constructor(private readonly options: ReplicationOptions) {
    this.capture = new Capture(options.db, options.shards, options.runtime.clock, options.frameBytes);
    this.placements = new Placements(options.shards, options.runtime.log);
    this.observation = new Observation(options.db);
    this.statusFile = new StatusFile(options.place, options.runtime.log);
    this.trouble = new Trouble(options.runtime.log);
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
    const found = install(db, {
      patterns: tables,
      rowidTables: tables.rowidTables,
      backfill: tables.backfill,
      newNodeId: () => hex(runtime.random.bytes(16)),
      scanned: (table) => this.capture.scanned(fold(table)),
    });
    this.capture.follow(found);
    const moved = new Set([...this.untaken?.moved ?? [], ...found.moved]);
    const installed = this.untaken = { ...found, moved };
    for (const { level, message, table, reason } of found.notes) {
      const key = `${message}\n${table}\n${reason}`;
      if (this.noted.has(key)) continue;
      this.noted.add(key);
      this.options.runtime.log[level](message, { table, reason });
    }
    const targets = new Targets(db, installed, tables);
    this.applier ??= this.makeApplier(installed.nodeId);
    this.applier.useSchema(targets);
    // both or none: a lock may be in the way of what a table needs, and it is all done again
    [this.installed, this.targets] = [installed, targets];
    this.takeUp();
    this.untaken = undefined;
    this.parkedWanted = true;
  }

  private takeUp(): void {
    const gone = this.capture.useSchema(this.targets!.logs, this.placements.all, this.installed!.version);
    if (gone || (this.untaken?.moved.size ?? 0) > 0) {
      for (const { publisher } of this.shards) publisher.restart("a table was renamed or dropped");
      this.settling.startAnew();
    }
  }

  /** The broker is there: streams are read and written from now on. */
  connect(broker: Broker): void {
    if (this.ended.signal.aborted) return;
    const { runtime } = this.options;
    this.broker = broker;
    const wake = () => this.alarm.ring();
    this.shards = broker.streams.map((stream, shard) => {
      const common = { stream, clock: runtime.clock, log: runtime.log, wake };
      const publisher = new Publisher({
        ...common,
        origin: this.nodeId,
        nonce: this.options.nonce,
        rewind: () => this.capture.restart(shard),
        conflict: (other) => this.options.conflict(`process ${other}`),
      });
      const again = () => publisher.restart("subscribed again");
      const { applier } = this;
      const options = { ...common, again, ahead: applier!.cursors.ahead.get(shard) };
      const subscriber = new Subscriber(options, applier!.cursor(shard), applier!.allSeen(shard));
      return { publisher, subscriber };
    });
    for (const { subscriber } of this.shards) this.receiving.push(subscriber.run(this.ended.signal));
    const off = broker.onConnection((connected) => {
      if (connected !== this.connected) {
        runtime.log.info(connected ? "broker is there" : "broker is away", { broker: broker.description });
      }
      this.connected = connected;
      if (!connected) { for (const { publisher } of this.shards) publisher.restart("the connection was lost"); }
      this.alarm.ring();
    });
    this.ended.signal.addEventListener("abort", off, { once: true });
    this.receiving.push(watchSizes(broker.streams, this.streamEnds, runtime, this.ended.signal));
  }

  /** Runs until aborted. */
  run(signal: AbortSignal): Promise<void> {
    const { ended } = this;
    signal.addEventListener("abort", () => ended.abort(signal.reason), { once: true });
    ended.signal.addEventListener("abort", () => this.alarm.ring(), { once: true });
    return this.running = this.loop(this.ended.signal);
  }

  async close(): Promise<void> {
    this.ended.abort(new Error("closed"));
    await this.running?.catch(() => {});
    await Promise.all(this.receiving.map((receiving) => receiving.catch(() => {})));
  }

  /** Waits until what is captured was sent and answered, if it can be. */
  async drain(signal: AbortSignal): Promise<void> {
    if (this.running !== undefined && this.connected && !this.ended.signal.aborted) await this.settled(signal);
  }

  /** Resolves when all that was committed before was read back from the stream. */
  async settled(signal: AbortSignal): Promise<void> {
    const left = AbortSignal.any([signal, this.ended.signal]);
    for (let isBack = false; !isBack;) {
      const scanned = this.settling.nextScan();
      this.scanWanted = true;
      this.alarm.ring();
      await untilAborted(scanned, left);
      const ends = [...this.targets!.logs.keys()].map((table) => [table, this.capture.scanned(table)] as const);
      isBack = await this.settling.readBack(ends, left);
    }
  }

  status(): NodeStatus {
    const { trouble } = this.placements;
    const stops = trouble === undefined ? this.trouble.reasons : [...this.trouble.reasons, trouble];
    return {
      id: this.nodeId,
      pid: process.pid,
      connected: this.connected,
      broker: this.broker?.description ?? null,
      shards: this.shards.map(({ publisher, subscriber }, shard) => {
        const cursor = this.applier!.cursor(shard).sequence;
        const stream = this.broker!.streams[shard]!;
        const stopped = subscriber.stopped?.reason ?? subscriber.failing ?? publisher.failing ?? null;
        // a node that catches up receives only so much ahead
        const end = Math.max(cursor, subscriber.received, this.streamEnds.get(stream) ?? 0);
        return { stream: stream.name, cursor, end, publisher: publisher.kind, stopped };
      }),
      stops,
      parked: this.applier!.parkedTables,
      excluded: this.installed!.excluded,
    };
  }

  private async loop(signal: AbortSignal): Promise<void> {
    const { clock } = this.options.runtime;
    const watching = this.observation.follow(this.options.runtime, () => this.alarm.ring(), signal);
    try {
      while (!signal.aborted) {
        const woken = this.alarm.next();
        const pause = Math.min(this.step(), this.observation.pollMs(clock.now()));
        if (pause === 0) await clock.sleep(0, signal);
        else await sleepUnless(woken, (stop) => clock.sleep(pause, stop));
      }
    } catch (error) {
      if (error instanceof ReplacedError) this.options.replaced(error.message);
      else if (!signal.aborted) throw error;
    } finally {
      await watching;
    }
  }

  /** One round. @returns how long nothing needs to be done, ms; 0 when there is more to do */
  private step(): number {
    const { clock } = this.options.runtime;
    const now = clock.now();
    try {
      // before the scan: what is read after it belongs to it
      const rest = this.capture.reading.after - now;
      const pause = Math.min(this.look(now), this.publish(rest), this.apply(), this.layParked(now));
      this.trouble.over();
      this.statusFile.write(now, () => this.status());
      return pause;
    } catch (error) {
      if (error instanceof ReplacedError) throw error;
      const pause = this.trouble.met(error, now);
      this.statusFile.write(now, () => this.status());
      return pause;
    } finally {
      this.spent += clock.now() - now;
    }
  }

  /** Finds out whether somebody else committed, and scans if so. */
  private look(now: number): number {
    const { observation } = this;
    if (observation.isReplaced(now)) throw new ReplacedError("the database file was replaced");
    // a lock may be in the way of what follows: it is not seen again
    if (observation.committed(now)) [this.scanWanted, this.isChecked] = [true, false];
    if (!this.isChecked && !this.applier!.isSameFile()) throw new ReplacedError(WENT_BACK);
    this.isChecked = true;
    if (this.untaken !== undefined) this.install();
    if (!this.scanWanted) return observation.patience(now);
    if (now < observation.scanAfter) return observation.scanAfter - now;
    const start = this.options.runtime.clock.now();
    const scan = this.capture.scan();
    if (scan.kind === "schema changed") {
      if (!this.capture.holdsWhatWasSeen()) throw new ReplacedError(WENT_BACK);
      const pause = missesCapture(this.options.db, this.installed!) ? 0 : observation.schemaChanged(now);
      if (pause === 0) this.install();
      return pause;
    }
    this.scanWanted = false;
    observation.scanned(start, scan.changes, this.spent);
    this.spent = 0;
    this.settling.scanned();
    const cut = this.capture.takeCutBacklog();
    if (cut > 0) this.options.runtime.log.warn(CUT_BACKLOG, { changes: cut });
    return Infinity;
  }

  /** @param rest how long no entries are to be read, ms */
  private publish(rest: number): number {
    let pause = Infinity;
    if (!this.placements.fits(this.installed!)) {
      this.place();
      return this.shards.length === 0 ? pause : PLACEMENT_RETRY_MS;
    }
    for (const [shard, { publisher, subscriber }] of this.shards.entries()) {
      if (subscriber.stopped !== undefined) continue;
      const cursor = this.applier!.cursor(shard).sequence;
      publisher.step(cursor, this.applier!.seen(shard, this.nodeId));
      if (publisher.kind !== "ready") pause = Math.min(pause, POLL_MS);
      if (!publisher.open) continue;
      if (rest > 0) pause = Math.min(pause, rest);
      const part = rest > 0 ? undefined : this.capture.read(shard, cursor, publisher.crowded);
      if (part === undefined) continue;
      publisher.send(part);
      pause = 0;
    }
    return pause;
  }

  private place(): void {
    if (this.broker === undefined || !this.connected) return;
    this.placements.ask(this.broker.registry, this.installed!).then(
      (answered) => answered && this.alarm.ring(),
      (error) => this.options.runtime.log.debug("placements are not known yet", { error: String(error) }),
    );
  }

  /** One transaction. */
  private apply(): number {
    const { clock, log } = this.options.runtime;
    const queues = fromTurn(this.shards.map(({ subscriber }) => subscriber.queue), this.turn);
    const [first] = queues.keys();
    if (first === undefined) return Infinity;
    const start = clock.now();
    const held = this.acknowledging.wait(start, queues, this.applier!.onlyAcknowledges);
    if (held > 0 || start < this.applyAfter) return Math.max(held, this.applyAfter - start);
    this.turn = first + 1;
    const pace = paceFor(this.observation.isWriting(start));
    const applied = this.applier!.apply(queues, pace);
    if (applied.kind === "schema changed") {
      this.scanWanted = true;
      return Infinity;
    }
    if (applied.kind === "replaced") throw new ReplacedError(WENT_BACK);
    const { messages, changes, ms } = applied;
    for (const [shard, count] of messages) {
      const { publisher, subscriber } = this.shards[shard]!;
      for (const delivery of subscriber.queue.slice(0, count)) publisher.observe(delivery);
      subscriber.passed(count);
    }
    this.acknowledging.applied();
    const end = clock.now();
    this.observation.wrote(end, changes);
    if (ms > LONG_APPLY_MS) log.info("a large batch was applied", { changes, ms: Math.round(ms) });
    this.applyAfter = nextTransaction(pace, start, end);
    return 0;
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

  private makeApplier(nodeId: string): Applier {
    const { db, nonce, runtime, shards } = this.options;
    return new Applier({
      db,
      nodeId,
      nonce,
      clock: runtime.clock,
      digest: digestOf,
      acknowledged: (table, highest, lowest) => this.acknowledged(table, highest, lowest),
      meanwhile: () => this.capture.scanIfDue(),
      capturedNullKeys: () => this.capture.nullKeys,
      notice: (table, reason, parked) => {
        if (parked) runtime.log.warn("table is parked: its changes wait", { table, reason });
        else runtime.log.info("changes are skipped", { table, reason });
      },
    }, shards);
  }

  private acknowledged(table: string, highest: number, lowest: number): void {
    this.capture.acknowledged(table, highest, lowest);
    this.settling.acknowledged(table, highest, lowest);
  }
}
