/**
 * Apply: lays accepted messages on the tables. Rows, cursor, accepted numbers and acknowledgements move in one
 * transaction (I2, I3); what is pending here is laid over what was touched (I1, rebase).
 */
import type { Delivery, Seen } from "./acceptance.ts";
import { type Message, type TableChanges, WRITTEN_AGAIN } from "./change.ts";
import { decodeFrame, readFrameSeqs, unpackedSize } from "./change_codec.ts";
import type { Database } from "./database.ts";
import { FULL_PACE, type Pace, stretched } from "./pace.ts";
import { inTurn, type Queues } from "./queues.ts";
import type { Clock } from "./runtime.ts";
import { transaction } from "./sqlite/connection.ts";
import { type Cursor, Cursors } from "./sqlite/cursors.ts";
import { TableProblem } from "./sqlite/laying.ts";
import { Parked, type ParkedPiece, type ParkedTable } from "./sqlite/parked.ts";
import { fold } from "./sqlite/quote.ts";
import { schemaVersion } from "./sqlite/schema.ts";
import type { Target, Targets } from "./sqlite/targets.ts";
import { Progress, Work } from "./sqlite/work.ts";

/** Messages prepared for one transaction, and their bytes, once decoded */
const TRANSACTION_MESSAGES = 2_000;
const TRANSACTION_BYTES = 4 * 1024 * 1024;
/** Parked pieces laid on in one transaction */
const PARKED_PIECES = 16;
/** Where rebasing took longer than this, ms, it is done once in a transaction: see `take` */
const LONG_REBASE_MS = 10;

export interface ApplierOptions {
  readonly db: Database;
  readonly nodeId: string;
  readonly nonce: string;
  readonly clock: Clock;
  readonly digest: (data: Uint8Array) => string;
  /** entries of a table's log were deleted: the highest and lowest seq left, 0 when it is empty */
  readonly acknowledged: (table: string, highest: number, lowest: number) => void;
  /** called now and then in what takes long, outside of transactions */
  readonly meanwhile: () => void;
  /** has this process captured a key with NULL in it? Rows that share one are made one at their origin too. */
  readonly capturedNullKeys: () => boolean;
  /** something is skipped or parked; called once for each table and reason until the schema changes */
  readonly notice: (table: string, reason: string, parked: boolean) => void;
}

export type Applied =
  /** the schema is not as install left it: nothing was done */
  | { readonly kind: "schema changed" }
  /** the cursor is not where this process left it: the file was replaced */
  | { readonly kind: "replaced" }
  | {
    readonly kind: "applied";
    /** by shard, how many of its messages were passed */
    readonly messages: ReadonlyMap<number, number>;
    readonly changes: number;
    readonly ms: number;
  };

interface Shard {
  cursor: Cursor;
  readonly seen: Map<string, Seen>;
  /** stream sequence at which rows were last written */
  writtenAt: number;
  /** the cursor when the schema was taken up */
  schemaAt: number;
}

/** A delivery, with its changes where they were decoded ahead. */
interface Prepared {
  readonly shard: number;
  readonly delivery: Delivery;
  readonly tables: TableChanges[] | undefined;
}

export class Applier {
  readonly cursors: Cursors;
  private readonly parked: Parked;
  private readonly shards: Shard[];
  private targets!: Targets;
  private rebaseMs = 0;
  /** tables whose changes failed here, until the schema changes: folded name → reason */
  private readonly failing = new Map<string, string>();
  private readonly said = new Set<string>();
  /** a log got another name while own messages were on their way: their seqs alone tell nothing any more */
  private logsMoved = false;

  constructor(private readonly options: ApplierOptions, shards: number) {
    this.cursors = new Cursors(options.db);
    this.parked = new Parked(options.db);
    this.shards = Array.from({ length: shards }, (_, shard) => {
      const cursor = this.cursors.read(shard);
      return { cursor, seen: this.cursors.readOrigins(shard), writtenAt: cursor.sequence, schemaAt: 0 };
    });
  }

  useSchema(targets: Targets): void {
    this.targets = targets;
    this.logsMoved ||= targets.installed.moved.size > 0;
    this.parked.load();
    this.failing.clear();
    this.said.clear();
    for (const state of this.shards) state.schemaAt = state.cursor.sequence;
  }

  cursor(shard: number): Cursor {
    return this.shards[shard]!.cursor;
  }

  seen(shard: number, origin: string): Seen | undefined {
    return this.shards[shard]!.seen.get(origin);
  }

  allSeen(shard: number): ReadonlyMap<string, Seen> {
    return this.shards[shard]!.seen;
  }

  /** Tables whose rows were refused may work now. */
  retryFailing(): void {
    this.failing.clear();
  }

  get parkedTables(): ParkedTable[] {
    return [...this.parked.tables.values()];
  }

  /** Does the file still hold the cursors that this process wrote? */
  isSameFile(): boolean {
    return this.cursors.standAt(this.shards);
  }

  /**
   * Applies as much of the queues as fits one transaction. Throws what SQLite throws (busy, full); nothing has changed
   * then.
   */
  apply(queues: Queues, pace = FULL_PACE): Applied {
    for (;;) {
      try {
        return this.tryApply(queues, stretched(pace, this.rebaseMs));
      } catch (error) {
        if (!(error instanceof TableProblem) || this.failing.has(fold(error.table))) throw error;
        this.failing.set(fold(error.table), error.reason);
      }
    }
  }

  private tryApply(queues: Queues, pace: Pace): Applied {
    const start = this.options.clock.now();
    const prepared = this.prepare(queues, pace);
    // what only acknowledges can wait
    const tries = prepared.some(({ tables }) => tables !== undefined) ? pace.tries : 1;
    const work = new Work(this.options.clock, this.shards.length);
    const undoParked = this.parked.undo();
    try {
      const obstacle = transaction(this.options.db, "IMMEDIATE", () => {
        if (schemaVersion(this.options.db) !== this.targets.installed.version) return "schema changed" as const;
        if (!this.isSameFile()) return "replaced" as const;
        this.takeSome(prepared, work, pace);
        work.rebase();
        this.moveCursors(work);
        work.readLeft(this.targets);
        return undefined;
      }, tries);
      if (obstacle !== undefined) return { kind: obstacle };
    } catch (error) {
      undoParked();
      throw error;
    }
    this.committed(work);
    const messages = new Map([...work.shards].map(([shard, progress]) => [shard, progress.messages]));
    return { kind: "applied", messages, changes: work.laying.changes, ms: this.options.clock.now() - start };
  }

  private takeSome(prepared: readonly Prepared[], work: Work, pace: Pace): void {
    const locked = this.options.clock.now();
    for (const one of prepared) {
      const progress = work.shards.get(one.shard) ?? new Progress(this.shards[one.shard]!.writtenAt);
      const isLate = this.options.clock.now() - locked >= pace.ms;
      if (work.shards.size > 0 && (isLate || this.needsPreparing(one, progress.writtenAt))) return;
      this.take(one, work, progress);
      work.passed(one.shard, progress, one.delivery);
    }
  }

  /**
   * Decodes what the transaction will write, compiles its statements and builds the pending index, before the write lock
   * is taken. A batch in several parts comes first in its transaction, when all its other parts are stored.
   */
  private prepare(queues: Queues, pace: Pace): Prepared[] {
    const prepared: Prepared[] = [];
    let [changes, bytes, laid] = [0, 0, false];
    for (const [shard, delivery] of inTurn(queues)) {
      const { message, verdict } = delivery;
      if (changes >= pace.changes || bytes >= TRANSACTION_BYTES || prepared.length >= TRANSACTION_MESSAGES) break;
      bytes += delivery.data.length;
      let tables: TableChanges[] | undefined;
      const again = laid && this.rebaseMs > LONG_REBASE_MS;
      const due = again || this.mustWrite(shard, message, this.shards[shard]!.writtenAt) || this.mustLookInside();
      if (verdict.accepted && message.last && due) {
        laid = true;
        for (const frame of this.framesOf(shard, delivery)) {
          tables = this.prepareFrame(frame);
          bytes += unpackedSize(frame);
          for (const table of tables) changes += table.changes.length;
        }
      }
      prepared.push({ shard, delivery, tables: message.part > 1 ? undefined : tables });
    }
    return prepared;
  }

  /**
   * Do rows matter that did not when it was prepared, for what came before it in the transaction? What they need (TEMP
   * objects) must not be made in a transaction, which may roll back.
   */
  private needsPreparing({ shard, delivery, tables }: Prepared, writtenAt: number): boolean {
    const { message, verdict } = delivery;
    if (tables !== undefined || !verdict.accepted || !message.last) return false;
    return this.mustWrite(shard, message, writtenAt) || this.mustLookInside();
  }

  /**
   * What an own batch says is in the tables already: its entries were pending until now, and were laid over all that was
   * written since they were made. But when a schema changed meanwhile, they may have gone with their log.
   */
  private mustWrite(shard: number, { origin, nonce, base }: Message, writtenAt: number): boolean {
    if (origin !== this.options.nodeId || nonce !== this.options.nonce) return true;
    return base === WRITTEN_AGAIN || (base <= this.shards[shard]!.schemaAt && writtenAt > base);
  }

  private prepareFrame(frame: Uint8Array): TableChanges[] {
    const tables = decodeFrame(frame);
    for (const shape of tables) {
      const target = this.targets.of(shape);
      if (target.kind !== "write") continue;
      target.local.pending.clearIfStale();
      while (!target.local.pending.step()) this.options.meanwhile();
    }
    return tables;
  }

  /** Does a message that waits acknowledge own entries, and nothing else? Not so a marker: the publisher waits for it. */
  readonly onlyAcknowledges = (shard: number, { message }: Delivery): boolean => {
    const isInTables = !this.mustWrite(shard, message, this.shards[shard]!.writtenAt);
    return message.number > 1 && isInTables && !this.mustLookInside();
  };

  /** Even own batches that need not be applied again hold something to do. */
  private mustLookInside(): boolean {
    return this.parked.tables.size > 0 || this.failing.size > 0 || this.options.capturedNullKeys();
  }

  private framesOf(shard: number, { message: { part, origin, frame } }: Delivery): Iterable<Uint8Array> {
    return part === 1 ? [frame] : this.cursors.frames(shard, origin, frame);
  }

  private take({ shard, delivery, tables }: Prepared, work: Work, progress: Progress): void {
    const { message, verdict } = delivery;
    if (!verdict.accepted) return;
    progress.seen.set(message.origin, verdict.seen!);
    if (verdict.newEpoch) this.cursors.dropParts(shard, message.origin);
    if (!message.last) {
      this.cursors.storePart(shard, message.origin, message);
      return;
    }
    // instead of a rebase now, while what it acknowledges is pending: that may take long for a batch that is decoded anyway
    const again = tables !== undefined && work.laying.isDue;
    if (message.origin === this.options.nodeId) {
      if (!again && work.laying.isDue) work.rebase();
      const own = message.nonce === this.options.nonce;
      for (const frame of this.framesOf(shard, delivery)) this.acknowledge(frame, own, work);
    }
    const write = again || this.mustWrite(shard, message, progress.writtenAt);
    if (write && message.number > 1) progress.writtenAt = delivery.sequence;
    if (tables !== undefined) this.applyTables(tables, write, work, message.origin);
    else if (write || this.mustLookInside()) {
      const frames = this.framesOf(shard, delivery);
      for (const frame of frames) this.applyTables(decodeFrame(frame), write, work, message.origin);
    }
    if (message.part > 1) this.cursors.dropParts(shard, message.origin);
  }

  private acknowledge(frame: Uint8Array, own: boolean, work: Work): void {
    if (frame.length === 0) return;
    for (const { table, seqs, stamps } of readFrameSeqs(frame)) {
      const name = fold(this.targets.installed.names.current(table)?.name ?? table);
      const log = this.targets.logs.get(name);
      if (log === undefined) continue;
      if (own && !this.logsMoved) work.delete(log, seqs);
      else seqs.forEach((seq, i) => log.deleteIfSame(seq, stamps[i]!));
      work.acknowledged.set(name, { highest: 0, lowest: 0 });
    }
  }

  /** @param write false for an own batch whose rows are in the tables already: only what must go everywhere is done */
  private applyTables(tables: readonly TableChanges[], write: boolean, work: Work, origin: string): void {
    for (const changes of tables) {
      const target = this.targets.of(changes);
      const waiting = this.waiting(target);
      if (waiting !== undefined) {
        this.say(waiting.table, waiting.reason, true);
        if (target.kind === "write") this.parked.outlive(waiting.table, origin);
        this.parked.add(waiting.table, waiting.reason, changes, origin);
      } else if (target.kind === "skip") {
        if (write) this.say(changes.table, target.reason, false);
      } else if (target.kind === "write") {
        const due = write || (target.local.table.nullableKey && this.options.capturedNullKeys());
        if (due) work.laying.apply(changes.changes, target.local, target.mapping);
      }
    }
  }

  /** The table that changes must wait for: its schema does not fit, or older changes wait. */
  private waiting(target: Target): { table: string; reason: string } | undefined {
    if (target.kind === "skip") return undefined;
    if (target.kind === "park") return target;
    const { name } = target.local.table;
    const reason = this.failing.get(fold(name)) ?? this.parked.tables.get(fold(name))?.reason;
    return reason === undefined ? undefined : { table: name, reason };
  }

  private moveCursors({ shards }: Work): void {
    for (const [shard, progress] of shards) {
      const { sequence, data, time } = progress.last!;
      progress.cursor = { sequence, digest: this.options.digest(data), time };
      this.cursors.write(shard, progress.cursor);
      for (const [origin, accepted] of progress.seen) this.cursors.writeSeen(shard, origin, accepted);
    }
  }

  private committed({ shards, rebaseMs, acknowledged }: Work): void {
    this.rebaseMs = rebaseMs;
    for (const [shard, { cursor, writtenAt, seen }] of shards) {
      const state = this.shards[shard]!;
      [state.cursor, state.writtenAt] = [cursor!, writtenAt];
      for (const [origin, accepted] of seen) state.seen.set(origin, accepted);
    }
    for (const [name, { highest, lowest }] of acknowledged) {
      this.options.acknowledged(name, highest, lowest);
      this.targets.acknowledged(name, highest);
    }
  }

  /**
   * Lays on parked changes whose schema is there now, a piece at a time.
   * @returns whether there may be more to do at once
   */
  layParked(): boolean {
    for (const [name, parked] of this.parked.tables) {
      const pieces = this.parked.oldest(name, PARKED_PIECES);
      if (pieces.length === 0) {
        this.parked.tables.delete(name);
        return true;
      }
      const ready: ParkedPiece[] = [];
      for (const piece of pieces) {
        const target = this.targets.of(piece.tables[0]!, piece.outlived);
        if (target.kind === "park") parked.reason = target.reason;
        if (target.kind === "park" || this.failing.has(name)) break;
        ready.push(piece);
      }
      if (ready.length > 0 && this.layPieces(name, ready)) return true;
    }
    return false;
  }

  private layPieces(name: string, pieces: readonly ParkedPiece[]): boolean {
    const work = new Work(this.options.clock, this.shards.length);
    const undoParked = this.parked.undo();
    try {
      const done = transaction(this.options.db, "IMMEDIATE", () => {
        if (schemaVersion(this.options.db) !== this.targets.installed.version || !this.isSameFile()) return false;
        for (const { tables, outlived } of pieces) {
          for (const changes of tables) {
            const target = this.targets.of(changes, outlived);
            if (target.kind === "write") work.laying.apply(changes.changes, target.local, target.mapping);
          }
        }
        work.rebase();
        this.parked.removeFirst(name, pieces);
        return true;
      });
      // behind the base of all that is on its way
      for (const state of this.shards) state.writtenAt = state.cursor.sequence + 1;
      return done;
    } catch (error) {
      undoParked();
      if (!(error instanceof TableProblem)) throw error;
      this.failing.set(name, error.reason);
      this.parked.tables.get(name)!.reason = error.reason;
      this.say(error.table, error.reason, true);
      return true;
    }
  }

  private say(table: string, reason: string, parked: boolean): void {
    const key = `${table}\n${reason}`;
    if (this.said.has(key)) return;
    this.said.add(key);
    this.options.notice(table, reason, parked);
  }
}
