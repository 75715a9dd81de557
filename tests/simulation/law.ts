/**
 * What a node's tables must be (I1), computed apart from Marmot's own apply: the accepted batches of each stream, in order, laid
 * with SQLite's own REPLACE into a database in memory, and the node's pending entries over them. The rows come from the change
 * logs as the application filled them; of a message only its order counts, and that it holds the same values.
 */
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
    const batches = new Map<number, string>();
    for (const { transaction, stamp } of entries) {
      if (transaction > 0) batches.set(transaction, `${batches.get(transaction) ?? ""} ${stamp}`);
    }
    for (const [transaction, stamps] of batches) {
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

/** The law's own database for one node. */
export class Shadow {
  private readonly db = new DatabaseSync(":memory:", { enableForeignKeyConstraints: false });
  private readonly tables: ReadonlyMap<string, LawTable>;
  private readonly statements = new Map<string, StatementSync>();
  /** per shard, the last message that was laid */
  readonly at: (Stored | undefined)[];
  /** by table: its rows as they were read, with which entries laid over them; none where they are others by now */
  private readonly read = new Map<string, { readonly sql: string; readonly pending: string; readonly text: string }>();

  constructor(sql: readonly string[], tables: readonly LawTable[], shards: number, private readonly law: StreamLaw) {
    for (const statement of sql) this.db.exec(statement);
    this.tables = new Map(tables.map((table) => [table.name, table]));
    this.at = new Array(shards).fill(undefined);
  }

  /** Lays what was accepted on the way to `target`, which must be ahead of where it stands. */
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
    const entries = way.reverse().flatMap((stored) => this.law.of(stored).entries);
    for (const entry of entries) {
      this.read.delete(entry.table);
      this.lay(entry);
    }
    this.at[shard] = target;
  }

  /** What these statements, by table, read with these entries laid over what was accepted: only where that is new. */
  under(pending: readonly Entry[], sqls: ReadonlyMap<string, string>): string[] {
    const stamps = new Map<string, string>();
    for (const { table, stamp } of pending) stamps.set(table, `${stamps.get(table) ?? ""} ${stamp}`);
    const isNew = (table: string, sql: string) => {
      const known = this.read.get(table);
      return known?.sql !== sql || known.pending !== (stamps.get(table) ?? "");
    };
    const others = new Map([...sqls].filter(([table, sql]) => isNew(table, sql)));
    const laid = pending.filter(({ table }) => others.has(table));
    if (laid.length > 0) this.db.exec("SAVEPOINT pending");
    for (const entry of laid) this.lay(entry);
    for (const [table, sql] of others) {
      const text = String(Object.values(this.compiled(sql).get()!)[0]);
      this.read.set(table, { sql, pending: stamps.get(table) ?? "", text });
    }
    if (laid.length > 0) this.db.exec("ROLLBACK TO pending; RELEASE pending");
    return [...sqls.keys()].map((table) => this.read.get(table)!.text);
  }

  close(): void {
    this.db.close();
  }

  private lay({ table, op, columns, values }: Entry): void {
    const known = this.tables.get(table);
    if (known === undefined) return;
    const { name, key, keyCollate } = known;
    const value = (column: string) => values[columns.indexOf(column)]!;
    const same = key.map((column) => `${column}${keyCollate} IS ${value(column)}`).join(" AND ");
    this.compiled(`DELETE FROM ${name} WHERE ${same}`).run();
    if (op !== 3) this.compiled(`INSERT OR REPLACE INTO ${name}(${columns}) VALUES (${values})`).run();
  }

  /** What is laid once is laid again soon: as accepted, and each time what is pending changes. */
  private compiled(sql: string): StatementSync {
    let statement = this.statements.get(sql);
    if (statement === undefined) this.statements.set(sql, statement = this.db.prepare(sql));
    return statement;
  }
}
