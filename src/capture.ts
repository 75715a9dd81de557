/**
 * Capture: finds out what applications committed, and reads it for the shards. A scan is one read snapshot and marks
 * where it ended, per table, without reading a row: so whole transactions stay together (I4) while the broker is away,
 * at the price of one number per table and snapshot.
 */
import { type Change, OP_DELETE, type SqlValue, WRITTEN_AGAIN } from "./change.ts";
import { FrameEncoder } from "./change_codec.ts";
import type { Database, Statement } from "./database.ts";
import { ReadingPace } from "./pace.ts";
import type { Clock } from "./runtime.ts";
import { hashKey, shardOf } from "./shard.ts";
import type { Agreement } from "./broker.ts";
import { SharedRanges } from "./sharing.ts";
import { type ChangeLog, headQueries, loggedTables } from "./sqlite/change_log.ts";
import { transaction } from "./sqlite/connection.ts";
import type { Installed } from "./sqlite/install.ts";
import { fold } from "./sqlite/quote.ts";
import { schemaVersion } from "./sqlite/schema.ts";

/**
 * Changes of one batch, when several snapshots fit: apply has to take it in one transaction, of some 2 ms. With several
 * shards each has its part of them, so there may be more, or there would be a message for every few rows; but not of
 * tables that are on one shard as a whole.
 */
const BATCH_CHANGES = 500;
const SHARDED_BATCH_CHANGES = 4_000;
/** Marks that nobody has read yet are joined up to this many changes, so that a long outage needs few of them. */
const MARK_CHANGES = 250;
/** While something takes long there is a scan this often, ms; a long read looks at the clock after so many entries */
const SCAN_WHILE_WORKING_MS = 5;
const SCAN_LOOK_CHANGES = 64;
/** What piled up while Marmot was down is one snapshot, unless it is more than this. */
const BACKLOG_LIMIT = 100_000;
/** Size of a frame, bytes */
const FRAME_BYTES = 512 * 1024;

/** End of a snapshot: the highest seq of each change log that grew. */
interface Mark {
  readonly ends: Map<string, number>;
  changes: number;
}

/** A piece of a batch for one shard. */
export interface Part {
  readonly frame: Uint8Array;
  readonly base: number;
  readonly last: boolean;
  readonly changes: number;
}

interface Reader {
  readonly position: Map<string, number>;
  batch: { readonly ends: Map<string, number>; base: number; sent: boolean } | undefined;
}

interface Source {
  /** of the table, folded */
  readonly name: string;
  readonly log: ChangeLog;
}

export type Scan = { readonly kind: "schema changed" } | { readonly kind: "scanned"; readonly changes: number };

export class Capture {
  private readonly sources = new Map<string, Source>();
  private placements: ReadonlyMap<string, Agreement> = new Map();
  private readonly readers: Reader[];
  private marks: Mark[] = [];
  private readonly scannedTo = new Map<string, number>();
  /** by table, the newest entry that was read to be published, while it is there */
  private readonly lastRead = new Map<string, { readonly seq: number; readonly stamp: bigint }>();
  private heads: { readonly query: Statement; readonly names: readonly string[] }[] = [];
  private version = -1;
  private readonly shared = new SharedRanges();
  private readonly encoder = new FrameEncoder();
  readonly reading: ReadingPace;
  private first = true;
  /** some entry had NULL in its key */
  nullKeys = false;
  private cutBacklog = 0;
  private scannedAt = 0;
  private readonly batchChanges: number;

  constructor(
    private readonly db: Database,
    private readonly shards: number,
    private readonly clock: Clock,
    /** uncompressed; one row may exceed it */
    private readonly frameBytes = FRAME_BYTES,
  ) {
    this.reading = new ReadingPace(() => clock.now());
    this.batchChanges = Math.min(SHARDED_BATCH_CHANGES, BATCH_CHANGES * shards);
    this.readers = Array.from({ length: shards }, () => ({ position: new Map(), batch: undefined }));
  }

  /**
   * Install gave logs other names, or took entries from them. At once, and whatever keeps the rest of it from being taken
   * up: the next install asks for what was scanned under the names of now. Marks stay where they are, so that transactions
   * stay whole. What was published must not be read before publishers have started anew.
   */
  follow({ moved, renames }: Pick<Installed, "moved" | "renames">): void {
    if (moved.size === 0) return;
    for (const name of moved) if (!renames.has(name)) this.forget(name);
    for (const held of [this.scannedTo, this.lastRead, ...this.marks.map(({ ends }) => ends)]) rename(held, renames);
    for (const shard of this.readers.keys()) this.restart(shard);
  }

  /**
   * Takes up the schema that install left. Positions in logs that are still there are kept.
   * @param placements looked up when a row is read: with several shards, nothing is before its table is agreed about
   * @returns whether a log that was read is gone: publishers must start anew, or a message that is still on its way would
   * acknowledge an entry that uses its number
   */
  useSchema(
    tables: ReadonlyMap<string, ChangeLog>,
    placements: ReadonlyMap<string, Agreement>,
    version: number,
  ): boolean {
    // first, since a lock may be in its way: then nothing has changed, and it is all done again
    this.heads = headQueries(this.db, [...tables.entries()].map(([name, log]) => [name, log.shape.table]));
    this.sources.clear();
    this.shared.clear();
    for (const [name, log] of tables) this.sources.set(name, { name, log });
    this.placements = placements;
    const gone = [...this.scannedTo.keys()].filter((name) => !tables.has(name));
    for (const name of gone) this.forget(name);
    this.version = version;
    return gone.length > 0;
  }

  /** highest seq of a table's log that a scan has seen */
  scanned(table: string): number {
    return this.scannedTo.get(table) ?? 0;
  }

  /**
   * Do the logs still hold what was seen in them? An older copy of the file may have the same cursor: numbers that are on
   * their way would be those of other entries, and entries with numbers that a scan has passed would never be read.
   */
  holdsWhatWasSeen(): boolean {
    const logged = new Set(loggedTables(this.db).map(fold));
    for (const [table, { log }] of this.sources) {
      const scanned = this.scanned(table);
      if (scanned === 0) continue;
      if (!logged.has(fold(log.shape.table)) || log.highest() < scanned) return false;
      const read = this.lastRead.get(table);
      if (read !== undefined && (log.stampOf(read.seq) ?? read.stamp) !== read.stamp) return false;
    }
    return true;
  }

  /** One read snapshot: marks what was committed since the last one. Throws what SQLite throws (busy). */
  scan(): Scan {
    this.scannedAt = this.clock.now();
    const heads = () => schemaVersion(this.db) === this.version ? this.readHeads() : undefined;
    const mark = this.reading.read(() => transaction(this.db, "DEFERRED", heads));
    if (mark === undefined) return { kind: "schema changed" };
    // first, since a lock may be in its way: then nothing counts as scanned
    if (mark.changes > 0) this.addMark(mark);
    for (const [table, end] of mark.ends) this.scannedTo.set(table, end);
    this.first = false;
    return { kind: "scanned", changes: mark.changes };
  }

  /**
   * All that is committed between two scans is one snapshot, which apply has to take in one transaction: called now and then
   * in whatever takes long, outside of transactions.
   */
  scanIfDue(): void {
    if (this.clock.now() - this.scannedAt >= SCAN_WHILE_WORKING_MS) this.scan();
  }

  private readHeads(): Mark {
    const mark: Mark = { ends: new Map(), changes: 0 };
    for (const { query, names } of this.heads) {
      for (const [place, head] of query.all()) {
        const name = names[Number(place)]!;
        const before = this.scanned(name);
        if (head === null || Number(head) <= before) continue;
        mark.ends.set(name, Number(head));
        // at the start, what is in front of the oldest entry was published long ago
        mark.changes += Number(head) - (this.first ? this.sources.get(name)!.log.lowest() - 1 : before);
      }
    }
    return mark;
  }

  /** Changes of the start's backlog, told once, if it was above the limit and cut, perhaps inside transactions; else 0. */
  takeCutBacklog(): number {
    const changes = this.cutBacklog;
    this.cutBacklog = 0;
    return changes;
  }

  /**
   * The next piece of a batch for a shard; undefined when everything marked was read.
   * @param crowded a batch is begun only when it is half full
   */
  read(shard: number, cursor: number, crowded = false): Part | undefined {
    const reader = this.readers[shard]!;
    for (;;) {
      if (reader.batch === undefined) {
        const ends = this.nextEnds(reader, crowded ? this.batchChanges / 2 : 1);
        if (ends === undefined) return undefined;
        reader.batch = { ends, base: cursor, sent: false };
      }
      const part = this.readPart(reader, reader.batch, shard);
      if (part.last) reader.batch = undefined;
      else reader.batch.sent = true;
      if (part.changes > 0 || (part.last && part.sent)) return part;
    }
  }

  /** The shard publishes again from its oldest pending entry. */
  restart(shard: number): void {
    this.shared.clear();
    this.readers[shard]!.position.clear();
    this.readers[shard]!.batch = undefined;
  }

  /** A transaction deleted entries of a log: seqs above the highest one left will be used again. */
  acknowledged(table: string, highest: number, lowest: number): void {
    this.shared.acknowledged(table, highest);
    for (const reader of this.readers) {
      if ((reader.position.get(table) ?? 0) > highest) reader.position.set(table, highest);
      const end = reader.batch?.ends.get(table);
      if (end !== undefined && end > highest) reader.batch!.ends.set(table, highest);
    }
    if (this.scanned(table) > highest) this.scannedTo.set(table, highest);
    if ((this.lastRead.get(table)?.seq ?? 0) > highest) this.lastRead.delete(table);
    this.marks = this.marks.filter((mark) => {
      const end = mark.ends.get(table);
      if (end === undefined) return true;
      if (highest === 0 || end < lowest) mark.ends.delete(table);
      else if (end > highest) mark.ends.set(table, highest);
      return mark.ends.size > 0;
    });
  }

  private forget(table: string): void {
    this.acknowledged(table, 0, 0);
    this.scannedTo.delete(table);
    for (const reader of this.readers) {
      reader.position.delete(table);
      reader.batch?.ends.delete(table);
    }
  }

  private addMark(mark: Mark): void {
    if (this.first && mark.changes > BACKLOG_LIMIT && this.isLarge(mark)) {
      const pieces: Mark[] = [];
      for (const [table, end] of mark.ends) {
        const lowest = this.sources.get(table)!.log.lowest();
        for (let to = lowest + BATCH_CHANGES - 1; to < end; to += BATCH_CHANGES) {
          pieces.push({ ends: new Map([[table, to]]), changes: BATCH_CHANGES });
        }
        pieces.push({ ends: new Map([[table, end]]), changes: BATCH_CHANGES });
      }
      this.marks = pieces;
      this.cutBacklog = mark.changes;
      return;
    }
    const before = this.marks.at(-1);
    if (before !== undefined && before.changes + mark.changes <= MARK_CHANGES) {
      for (const [table, end] of mark.ends) before.ends.set(table, end);
      before.changes += mark.changes;
    } else {
      this.marks.push(mark);
    }
  }

  /** Other shards' entries may be gone from between: then the numbers tell of many more than there are. */
  private isLarge({ ends }: Mark): boolean {
    let left = BACKLOG_LIMIT;
    for (const table of ends.keys()) left -= this.sources.get(table)!.log.count(left + 1);
    return left < 0;
  }

  /** Joins whole snapshots, from the first that the reader has not passed, up to a batch. */
  private nextEnds(reader: Reader, least: number): Map<string, number> | undefined {
    const ends = new Map<string, number>();
    let [changes, undivided, isFull] = [0, 0, false];
    for (const mark of this.marks) {
      let ahead = 0;
      for (const [table, end] of mark.ends) {
        const more = Math.max(0, end - (ends.get(table) ?? reader.position.get(table) ?? 0));
        ahead += more;
        if (this.placements.get(table)?.placement === "whole") undivided += more;
      }
      if (ahead === 0) continue;
      isFull = changes + mark.changes > this.batchChanges || undivided > BATCH_CHANGES;
      if (ends.size > 0 && isFull) break;
      for (const [table, end] of mark.ends) ends.set(table, end);
      changes += mark.changes;
    }
    return ends.size > 0 && (isFull || changes >= least) ? ends : undefined;
  }

  /** Encodes entries until the frame is full or the batch ends. Positions move when that worked. */
  private readPart(reader: Reader, batch: NonNullable<Reader["batch"]>, shard: number): Part & { sent: boolean } {
    const moved = new Map<string, number>();
    let changes = 0;
    let full = false;
    this.encoder.reset();
    for (const [table, end] of batch.ends) {
      const after = reader.position.get(table) ?? 0;
      const source = this.sources.get(table);
      if (source === undefined || after >= end) continue;
      let begun = false;
      let newest: Change | undefined;
      moved.set(table, end);
      for (const change of this.changesOf(shard, table, source, after, end)) {
        if (full) {
          moved.set(table, change.seq - 1);
          break;
        }
        if (!begun) this.encoder.begin(source.log.shape);
        begun = true;
        // laid over what came meanwhile without these columns: its rows must be written when it comes back
        if (source.log.isFilled(change.seq)) batch.base = WRITTEN_AGAIN;
        this.nullKeys ||= hasNullKey(change, source.log.shape.key);
        this.encoder.add(change.op, change.seq, change.stamp, change.values);
        newest = change;
        changes++;
        full = this.encoder.size >= this.frameBytes;
      }
      if (newest !== undefined && newest.seq > (this.lastRead.get(table)?.seq ?? 0)) {
        this.lastRead.set(table, { seq: newest.seq, stamp: newest.stamp });
      }
      if (full) break;
    }
    const frame = changes > 0 ? this.encoder.finish() : new Uint8Array(0);
    for (const [table, to] of moved) reader.position.set(table, to);
    const last = [...batch.ends].every(([table, end]) =>
      (reader.position.get(table) ?? 0) >= end || !this.sources.has(table)
    );
    return { frame, base: batch.base, last, changes, sent: batch.sent };
  }

  private changesOf(shard: number, table: string, source: Source, after: number, to: number): Iterable<Change> {
    const read = () => this.entriesOf(source, after, to);
    if (this.shards === 1) return read();
    const shardOfChange = (change: Change) => this.shardOf(source, change);
    return this.shared.of(shard, table, after, to, read, shardOfChange) ?? this.ownOf(shard, read(), shardOfChange);
  }

  private *ownOf(shard: number, changes: Iterable<Change>, shardOf: (change: Change) => number): Generator<Change> {
    for (const change of changes) if (shardOf(change) === shard) yield change;
  }

  private *entriesOf(source: Source, after: number, to: number): Generator<Change> {
    let read = 0;
    const around = <T>(snapshot: () => T) => this.reading.read(snapshot);
    for (const change of source.log.read(after, to, Number.MAX_SAFE_INTEGER, around)) {
      if (++read % SCAN_LOOK_CHANGES === 0) this.scanIfDue();
      yield change;
    }
  }

  private shardOf({ name, log }: Source, change: Change): number {
    const { placement, home } = this.placements.get(name)!;
    const { key, collations } = log.shape;
    const hashed = placement === "whole" ? hashKey(home, [], []) : hashKey(home, keyOf(change, key), collations);
    return shardOf(hashed, this.shards);
  }
}

/** Names may take each other's place. */
function rename(held: Map<string, unknown>, renames: ReadonlyMap<string, string>): void {
  const entries = [...held].map(([name, value]) => [renames.get(name) ?? name, value] as const);
  held.clear();
  for (const [name, value] of entries) held.set(name, value);
}

function keyOf(change: Change, key: readonly number[]): readonly SqlValue[] {
  return change.op === OP_DELETE ? change.values : key.map((place) => change.values[place]!);
}

function hasNullKey({ op, values }: Change, key: readonly number[]): boolean {
  return op === OP_DELETE ? values.includes(null) : key.some((place) => values[place] === null);
}
