/** What moves in the same transaction as the rows: cursors, accepted numbers, stored parts. */
import type { Seen } from "../acceptance.ts";
import { joined } from "../bytes.ts";
import type { Database, Statement } from "../database.ts";
import { CURSORS, NODE_TABLE, ORIGINS, PARTS, writeFact } from "./own_tables.ts";

/** Where a shard stands, and the identity of the message there; no identity before the first message. */
export interface Cursor {
  readonly sequence: number;
  readonly digest: string | null;
  readonly time: number;
}

export interface StoredPart {
  readonly frame: Uint8Array;
  readonly continues: boolean;
}

const ALL = `SELECT shard, cursor, digest, time FROM ${CURSORS}`;
const AHEAD = "ahead ";

/** By shard, where a clone's source stood when it was handed out: it may have rows of up to there. */
function readAhead(db: Database): Map<number, Cursor> {
  const facts = db.prepare(
    `SELECT substr(name, ${AHEAD.length + 1}), value FROM ${NODE_TABLE} WHERE name GLOB '${AHEAD}*'`,
  );
  return new Map(facts.all().map(([shard, cursor]) => [Number(shard), JSON.parse(String(cursor))]));
}

/** The clone must find the messages that its source stands at. What the source had to find itself came with the copy. */
export function writeAhead(clone: Database, source: ReadonlyMap<number, Cursor>): void {
  const ahead = readAhead(clone);
  for (const [shard, cursor] of source) {
    if ((ahead.get(shard)?.sequence ?? 0) >= cursor.sequence) continue;
    writeFact(clone, `${AHEAD}${shard}`, JSON.stringify(cursor));
  }
}

/** By shard. */
export function readPositions(db: Database): Map<number, Cursor> {
  const rows = db.prepare(ALL).all();
  return new Map(rows.map(([shard, sequence, digest, time]) => {
    const identity = { digest: digest === null ? null : String(digest), time: Number(time ?? 0) };
    return [Number(shard), { sequence: Number(sequence), ...identity }];
  }));
}

export class Cursors {
  /** messages that the file may have rows of, by shard, passed or not */
  readonly ahead: ReadonlyMap<number, Cursor>;
  private readonly writeCursor: Statement;
  private readonly writeOrigin: Statement;
  private readonly writePart: Statement;
  private readonly readPart: Statement;
  private readonly deleteParts: Statement;
  private readonly hasParts: Statement;
  private readonly all: Statement;

  constructor(private readonly db: Database) {
    this.ahead = readAhead(db);
    this.all = db.prepare(ALL);
    this.writeCursor = db.prepare(
      `INSERT INTO ${CURSORS} VALUES (?1, ?2, ?3, ?4) ON CONFLICT (shard) DO UPDATE SET cursor = ?2, digest = ?3, time = ?4`,
    );
    this.writeOrigin = db.prepare(
      `INSERT INTO ${ORIGINS} VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (shard, origin) DO UPDATE SET nonce = ?3, epoch = ?4, number = ?5`,
    );
    this.writePart = db.prepare(`INSERT INTO ${PARTS}(shard, origin, continues, frame) VALUES (?, ?, ?, ?)`);
    this.readPart = db.prepare(
      `SELECT id, continues, frame FROM ${PARTS} WHERE id > ? AND shard = ? AND origin = ? ORDER BY id LIMIT 1`,
    );
    this.deleteParts = db.prepare(`DELETE FROM ${PARTS} WHERE shard = ? AND origin = ?`);
    this.hasParts = db.prepare(`SELECT 1 FROM ${PARTS} LIMIT 1`);
  }

  /** Sequence 0 for a shard that has no cursor yet. */
  read(shard: number): Cursor {
    return readPositions(this.db).get(shard) ?? { sequence: 0, digest: null, time: 0 };
  }

  /** Does each shard stand where `cursors` says, in order? */
  standAt(cursors: readonly { readonly cursor: Cursor }[]): boolean {
    const rows = this.all.all();
    return cursors.every(({ cursor }, shard) => {
      const row = rows.find(([at]) => Number(at) === shard);
      return (row === undefined ? 0 : Number(row[1])) === cursor.sequence;
    });
  }

  write(shard: number, cursor: Cursor): void {
    this.writeCursor.run(BigInt(shard), BigInt(cursor.sequence), cursor.digest, BigInt(Math.trunc(cursor.time)));
  }

  readOrigins(shard: number): Map<string, Seen> {
    const rows = this.db.prepare(`SELECT origin, nonce, epoch, number FROM ${ORIGINS} WHERE shard = ?`).all(
      BigInt(shard),
    );
    return new Map(rows.map(([origin, nonce, epoch, number]) => {
      return [String(origin), { nonce: String(nonce), epoch: Number(epoch), number: Number(number) }];
    }));
  }

  writeSeen(shard: number, origin: string, seen: Seen): void {
    this.writeOrigin.run(BigInt(shard), origin, seen.nonce, BigInt(seen.epoch), BigInt(seen.number));
  }

  storePart(shard: number, origin: string, part: StoredPart): void {
    this.writePart.run(BigInt(shard), origin, part.continues ? 1n : 0n, part.frame);
  }

  /** One at a time, so that a batch of any size needs the memory of one part. */
  private *parts(shard: number, origin: string): Generator<StoredPart> {
    for (let at = 0n;;) {
      const row = this.readPart.get(at, BigInt(shard), origin);
      if (row === undefined) return;
      at = row[0] as bigint;
      yield { continues: Number(row[1]) === 1, frame: row[2] as Uint8Array };
    }
  }

  /** The frames of a batch in several parts: those stored, and the last part's. */
  *frames(shard: number, origin: string, last: Uint8Array): Generator<Uint8Array> {
    let pieces: Uint8Array[] = [];
    for (const { frame, continues } of this.parts(shard, origin)) {
      pieces.push(frame);
      if (continues) continue;
      yield joined(pieces);
      pieces = [];
    }
    pieces.push(last);
    yield joined(pieces);
  }

  dropParts(shard: number, origin: string): void {
    if (this.hasParts.get() !== undefined) this.deleteParts.run(BigInt(shard), origin);
  }
}

/** Cursors of all shards, in order. */
export function readCursors(db: Database): number[] {
  return db.prepare(`SELECT cursor FROM ${CURSORS} ORDER BY shard`).all().map(([cursor]) => Number(cursor));
}
