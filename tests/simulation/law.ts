/**
 * What a node's tables must be (I1), computed apart from Marmot's own apply: the accepted batches of each stream, in order, laid
 * with SQLite's own REPLACE into a database in memory, and the node's pending entries over them. The rows come from the change
 * logs as the application filled them; of a message only its order counts, and that it holds the same values.
 */
import { Buffer } from "node:buffer";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { decodeFrame, decodeMessage } from "../../src/change_codec.ts";
import type { Stored } from "./cluster_broker.ts";
import type { Entries, Entry } from "./entries.ts";
import { literal } from "./literals.ts";
import { Violation } from "./violation.ts";

interface Seen {
  readonly nonce: string;
  readonly epoch: number;
  readonly number: number;
}

/** What a shard has accepted with a message, and what is laid at it. */
export interface Accepted {
  readonly origin: string;
  readonly seen: ReadonlyMap<string, Seen>;
  /** pieces of unfinished batches, by origin */
  readonly parts: ReadonlyMap<string, readonly Piece[]>;
  /** takes effect here, in order */
  readonly entries: readonly Entry[];
}

interface Piece {
  readonly frame: Uint8Array;
  readonly continues: boolean;
}

const NOTHING: Accepted = { origin: "", seen: new Map(), parts: new Map(), entries: [] };

/** The acceptance rule, and which entries take effect where. */
export class StreamLaw {
  private readonly judged = new Map<Stored, Accepted>();

  /** shard and transaction → the stamps of what it wrote there */
  private readonly batches = new Map<string, string>();
  private readonly states = new Map<string, number>();
  /** what was read of a table: by the statement, its state and what was laid over it, for all nodes */
  private readonly texts = new Map<string, Map<string, string>>();

  /** @param whole are transactions seen whole in the stream? Where triggers are made anew, rows are logged anew, too */
  constructor(private readonly entries: Entries, private readonly whole: boolean) {}

  of(stored: Stored | undefined): Accepted {
    if (stored === undefined) return NOTHING;
    const waiting: Stored[] = [];
    let at: Stored | undefined = stored;
    for (; at !== undefined && !this.judged.has(at); at = at.before) waiting.push(at);
    let before = at === undefined ? NOTHING : this.judged.get(at)!;
    for (const next of waiting.reverse()) this.judged.set(next, before = this.judge(next, before));
    return before;
  }

  /** @returns the state of a table that was in another one when this was laid; the same for each node that lays the same */
  stateAfter(state: number, { stamp }: Entry): number {
    const way = `${state} ${stamp}`;
    let after = this.states.get(way);
    if (after === undefined) this.states.set(way, after = this.states.size + 1);
    return after;
  }

  textsOf(sql: string): Map<string, string> {
    let texts = this.texts.get(sql);
    if (texts === undefined) this.texts.set(sql, texts = new Map());
    return texts;
  }

  private judge({ shard, data }: Stored, before: Accepted): Accepted {
    const { origin, nonce, epoch, number, last, continues, frame } = decodeMessage(data);
    const seen = before.seen.get(origin) ?? { nonce: "", epoch: 0, number: 0 };
    const higher = epoch > seen.epoch && number === 1;
    const next = epoch === seen.epoch && nonce === seen.nonce && number === seen.number + 1;
    if (!higher && !next) return { ...before, origin, entries: [] };
    const parts = new Map(before.parts);
    const pieces = [...(higher ? [] : parts.get(origin) ?? []), { frame, continues }];
    parts.delete(origin);
    if (!last) parts.set(origin, pieces);
    const entries = last ? this.entriesOf(pieces) : [];
    if (this.whole) this.requireWhole(shard, entries);
    return { origin, seen: new Map(before.seen).set(origin, { nonce, epoch, number }), parts, entries };
  }

  /** I4: what a transaction wrote on a shard is in one batch. */
  private requireWhole(shard: number, entries: readonly Entry[]): void {
    const batches = new Map<number, Map<string, string>>();
    for (const { transaction, table, stamp } of entries) {
      if (transaction === 0) continue;
      const tables = batches.get(transaction) ?? new Map<string, string>();
      batches.set(transaction, tables.set(table, `${tables.get(table) ?? ""} ${stamp}`));
    }
    for (const [transaction, tables] of batches) {
      // published again, after the stream lost it, its tables may come in another order
      const stamps = [...tables.values()].sort().join(", ");
      const key = `${shard} ${transaction}`;
      if ((this.batches.get(key) ?? stamps) !== stamps) {
        throw new Violation("I4: a transaction is in several batches");
      }
      this.batches.set(key, stamps);
    }
  }

  private entriesOf(pieces: readonly Piece[]): Entry[] {
    const entries: Entry[] = [];
    let frame: Uint8Array[] = [];
    for (const piece of pieces) {
      frame.push(piece.frame);
      if (piece.continues) continue;
      entries.push(...this.entriesOfFrame(joined(frame)));
      frame = [];
    }
    return entries;
  }

  private entriesOfFrame(frame: Uint8Array): Entry[] {
    return decodeFrame(frame).flatMap(({ columns, key, changes }) =>
      changes.map(({ op, stamp, values }) => {
        const names = op === 3 ? key.map((place) => columns[place]!) : columns;
        return this.entries.travelled(String(stamp), op, names, values.map(literal));
      })
    );
  }
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** A table as the law sees it. */
export interface LawTable {
  readonly name: string;
  readonly columns: readonly string[];
  readonly key: readonly string[];
  readonly keyCollate: string;
}

interface ShadowTable {
  readonly table: LawTable;
  /** of what was accepted: see StreamLaw */
  state: number;
  /** what belongs to that state and is not in the database yet: nobody has asked for it */
  readonly waiting: Entry[];
}

/** The law's own database for one node. */
export class Shadow {
  private readonly db = new DatabaseSync(":memory:", { enableForeignKeyConstraints: false });
  private readonly tables: ReadonlyMap<string, ShadowTable>;
  private readonly statements = new Map<string, StatementSync>();
  /** per shard, the last message that was laid */
  readonly at: (Stored | undefined)[];

  constructor(sql: readonly string[], tables: readonly LawTable[], shards: number, private readonly law: StreamLaw) {
    this.db.exec(sql.join(";\n"));
    this.tables = new Map(tables.map((table) => [table.name, { table, state: 0, waiting: [] }]));
    this.at = new Array(shards).fill(undefined);
  }

  /** Goes on with what was accepted on the way to `target`, which must be ahead of where it stands. */
  advance(shard: number, target: Stored | undefined): void {
    const way: Stored[] = [];
    let at = target;
    while (at !== undefined && at !== this.at[shard]) {
      way.push(at);
      at = at.before;
    }
    if (at !== this.at[shard]) {
      const [from, to] = [this.at[shard]?.sequence, target?.sequence];
      throw new Violation(`a node went on at a wrong position of shard ${shard}: from ${from} to ${to}`);
    }
    for (const stored of way.reverse()) {
      for (const entry of this.law.of(stored).entries) {
        const known = this.tables.get(entry.table);
        if (known === undefined) continue;
        known.state = this.law.stateAfter(known.state, entry);
        known.waiting.push(entry);
      }
    }
    this.at[shard] = target;
  }

  /** What these statements, by table, read with these entries laid over what was accepted. */
  under(pending: readonly Entry[], sqls: ReadonlyMap<string, string>): string[] {
    return [...sqls].map(([name, sql]) => {
      const shadow = this.tables.get(name)!;
      const over = pending.filter(({ table }) => table === name);
      const place = over.length === 0 ? `${shadow.state}` : `${shadow.state} ${over.map(({ stamp }) => stamp)}`;
      const texts = this.law.textsOf(sql);
      let text = texts.get(place);
      if (text === undefined) texts.set(place, text = this.read(shadow, over, sql));
      return text;
    });
  }

  private read({ table, waiting }: ShadowTable, over: readonly Entry[], sql: string): string {
    for (const entry of waiting.splice(0)) this.lay(table, entry);
    if (over.length > 0) this.compiled("SAVEPOINT pending").run();
    for (const entry of over) this.lay(table, entry);
    const text = String(Object.values(this.compiled(sql).get()!)[0]);
    if (over.length > 0) {
      this.compiled("ROLLBACK TO pending").run();
      this.compiled("RELEASE pending").run();
    }
    return text;
  }

  close(): void {
    this.db.close();
  }

  private lay(table: LawTable, entry: Entry): void {
    let laid = layings.get(entry);
    if (laid === undefined) layings.set(entry, laid = layingOf(table, entry));
    for (const { sql, values } of laid) this.compiled(sql).run(...values);
  }

  private compiled(sql: string): StatementSync {
    let statement = this.statements.get(sql);
    if (statement === undefined) this.statements.set(sql, statement = this.db.prepare(sql));
    return statement;
  }
}

interface Laying {
  readonly sql: string;
  readonly values: readonly (Uint8Array | bigint)[];
}

/** An entry is laid for several nodes, and again each time what is pending changes. */
const layings = new WeakMap<Entry, readonly Laying[]>();

function layingOf({ name, key, keyCollate }: LawTable, { op, columns, values }: Entry): Laying[] {
  const bound = new Map(columns.map((column, place) => [column, parameterOf(values[place]!)]));
  const same = key.map((column) => `${column}${keyCollate} IS ${bound.get(column)!.sql}`).join(" AND ");
  const valuesOf = (names: readonly string[]) => names.flatMap((column) => bound.get(column)!.values);
  const remove = { sql: `DELETE FROM ${name} WHERE ${same}`, values: valuesOf(key) };
  if (op === 3) return [remove];
  const terms = columns.map((column) => bound.get(column)!.sql);
  const insert = { sql: `INSERT OR REPLACE INTO ${name}(${columns}) VALUES (${terms})`, values: valuesOf(columns) };
  return [remove, insert];
}

/** Bytes and integers, which are many, as values of one statement; of the rest there are few. Some driver binds no bytes as NULL. */
function parameterOf(literal: string): Laying {
  const [, text, blob] = /^(?:\(\+CAST\(X'([0-9A-F]+)' AS TEXT\)\)|X'([0-9A-F]+)')$/.exec(literal) ?? [];
  if (text !== undefined) return { sql: "(+CAST(? AS TEXT))", values: [Buffer.from(text, "hex")] };
  if (blob !== undefined) return { sql: "?", values: [Buffer.from(blob, "hex")] };
  return /^-?\d+$/.test(literal) ? { sql: "?", values: [BigInt(literal)] } : { sql: literal, values: [] };
}
