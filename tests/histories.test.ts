/**
 * Random histories of two or three nodes, made of the real classes over real files: crashes, lost, late and doubled
 * publishes, parts, files put back to an older copy, clones, and an application that writes whenever it can, between Marmot's
 * statements too. After every step each node must be what the law says (I1). MARMOT_SEED runs one history alone.
 */
import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { env } from "node:process";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { test } from "node:test";
import { prepareCopy } from "../src/clone.ts";
import type { Database } from "../src/database.ts";
import { type PendingMarks, stillPending } from "../src/sqlite/change_log.ts";
import { openDatabase } from "../src/sqlite/connection.ts";
import { CoreNode, settle } from "./support/core_node.ts";
import { PAIR, type Variant, VARIANTS } from "./support/history_schemas.ts";
import { copyOf, keyOf, Law, type LawChange, type LawTable, put } from "./support/law.ts";
import { MemoryStream } from "./support/memory_stream.ts";
import { Random } from "./support/random.ts";

const HISTORIES = 140;
const LAST_ROUNDS = 400;
const MOST_NODES = 5;

/** A node's file, its application, and its process while there is one. */
class Member {
  process: CoreNode | undefined;
  app: DatabaseSync;
  readonly copies: string[] = [];
  /** was made by clone, and holds what its source published ahead of its cursor */
  young = false;
  /** stamps of entries that must be accepted in the end */
  must = new Set<string>();
  id = "";
  private busy = false;
  private readonly statements = new Map<string, StatementSync>();

  constructor(private readonly world: World, readonly path: string) {
    this.app = open(path);
  }

  create(): void {
    this.app.exec(`${this.world.variant.sql}; CREATE TABLE pair(id INTEGER PRIMARY KEY, n)`);
    this.start();
  }

  start(): void {
    const { random, streams, variant } = this.world;
    this.process = new CoreNode({
      path: this.path,
      streams,
      hex: (digits) => random.hex(digits),
      now: () => this.world.now,
      placement: (name) => name === "t" ? variant.placement : "rows",
      wrap: (db) => this.interleaved(db),
      frameBytes: random.pick([1, 150, 1e6, 1e6]),
    });
    this.id = this.process.id;
  }

  crash(): void {
    this.process?.close();
    this.process = undefined;
  }

  save(): void {
    const copy = `${this.path}.${this.copies.length}`;
    copyFileSync(this.path, copy);
    this.copies.push(copy);
  }

  /** The file is an older one again. */
  travel(copy: string): void {
    this.crash();
    this.statements.clear();
    this.app.close();
    copyFileSync(copy, this.path);
    this.app = open(this.path);
    this.must.clear();
    this.world.clones = this.world.clones.filter(({ source }) => source !== this);
  }

  /** A copy for a new node, which may start once this one has read back what is pending in it. */
  clone(): void {
    const path = `${this.path}.clone${this.world.clones.length}${this.world.members.length}`;
    copyFileSync(this.path, path);
    this.world.clones.push({ path, marks: prepareCopy(path), source: this });
  }

  /** A transaction of the application. */
  write(): void {
    const { random, variant } = this.world;
    const tables = ["t", "pair"];
    const before = tables.map((name) => this.rows(`SELECT ifnull(max(seq), 0) FROM ${log(name)}`)[0]![0]!);
    const { columns, key } = variant.table;
    const value = (name: string) => variant.values(name, random);
    const where = key.map((name) => `${name} IS ${value(name)}`).join(" AND ");
    const insert = () => `REPLACE INTO t(${columns}) VALUES (${columns.map(value)})`;
    const statements = Array.from({ length: 1 + random.below(3) }, () => {
      const x = random.next();
      if (x < 0.5) return insert();
      if (x < 0.65) return `DELETE FROM t WHERE ${where}`;
      const name = x < 0.8 ? random.pick(key) : random.pick(columns);
      return `UPDATE OR REPLACE t SET ${name} = ${value(name)} WHERE ${where}`;
    });
    if (random.below(3) === 0) {
      const n = ++this.world.pairs;
      statements.push(`REPLACE INTO pair VALUES (1, ${n})`, `REPLACE INTO pair VALUES (2, ${n})`);
    }
    this.app.exec(`BEGIN IMMEDIATE; ${statements.join("; ")}; COMMIT`);
    tables.forEach((name, i) => {
      for (const [stamp] of this.rows(`SELECT CAST(stamp AS TEXT) FROM ${log(name)} WHERE seq > ${before[i]!}`)) {
        this.must.add(stamp!);
        this.world.written.set(stamp!, this.world.written.size);
      }
    });
  }

  rows(sql: string): string[][] {
    let statement = this.statements.get(sql);
    if (statement === undefined) this.statements.set(sql, statement = this.app.prepare(sql));
    return statement.all().map((row) => Object.values(row).map(String));
  }

  pending(): LawChange[] {
    return [this.world.variant.table, PAIR].flatMap(({ name, columns, key }) => {
      const values = columns.map((column) => `quote("val_${column}")`).join();
      return this.rows(`SELECT op, CAST(stamp AS TEXT), ${values} FROM ${log(name)} ORDER BY seq`).map(
        ([op, stamp, ...row]) => {
          const named = columns.map((column, place): [string, string] => [column, row[place]!]);
          const deletes = op === "3";
          return {
            table: name,
            stamp: stamp!,
            row: new Map(named.filter(([c]) => !deletes || key.includes(c))),
            deletes,
          };
        },
      );
    });
  }

  withConnection<T>(body: (db: Database) => T): T {
    const db = openDatabase(this.path);
    try {
      return body(db);
    } finally {
      db.close();
    }
  }

  private mayFail(): boolean {
    return this.process !== undefined && !this.world.ending;
  }

  /** The application writes before Marmot has the lock and after it let go, and now and then the lock can't be had. */
  private interleaved(db: Database): Database {
    const { random } = this.world;
    const between = () => {
      if (this.busy || this.world.ending || random.below(12) > 0) return;
      this.busy = true;
      this.write();
      this.busy = false;
    };
    const exec = (sql: string) => {
      if (sql.startsWith("BEGIN") && this.process !== undefined) between();
      if (sql === "COMMIT" && this.mayFail() && random.below(25) === 0) throw new Error("database is locked");
      db.exec(sql);
      if (sql === "COMMIT" && this.process !== undefined) between();
    };
    return {
      path: db.path,
      prepare: (sql) => db.prepare(sql),
      exec,
      setAuthorizer: (authorizer) => db.setAuthorizer(authorizer),
      function: (name, varargs, implementation) => db.function(name, varargs, implementation),
      close: () => db.close(),
    };
  }
}

class World {
  now = 0;
  pairs = 0;
  /** nothing is written, lost or locked any more */
  ending = false;
  /** how much the network loses, doubles and keeps back: probability for a message */
  readonly trouble: number;
  readonly variant: Variant;
  readonly streams: MemoryStream[];
  readonly laws: Law[];
  readonly members: Member[];
  clones: { readonly path: string; readonly marks: PendingMarks; readonly source: Member }[] = [];
  readonly tables: ReadonlyMap<string, LawTable>;
  /** order in which entries were written */
  readonly written = new Map<string, number>();

  constructor(readonly random: Random, folder: string) {
    this.variant = random.pick(VARIANTS);
    this.trouble = random.pick([0, 0.02, 0.1]);
    const payload = random.pick([62 + 70, 62 + 200, 1e6, 1e6]);
    this.streams = Array.from({ length: this.variant.shards }, (_, i) => new MemoryStream(`s-${i + 1}`, payload));
    this.tables = new Map([["t", this.variant.table], ["pair", PAIR]]);
    this.laws = this.streams.map((stream) => new Law(stream, this.tables));
    const count = 2 + random.below(2);
    this.members = Array.from({ length: count }, (_, i) => new Member(this, join(folder, `${i}.db`)));
    for (const member of this.members) member.create();
  }

  startClones(): void {
    const ready = this.clones.filter(({ source, marks }) =>
      source.withConnection((db) => stillPending(db, marks)) === 0
    );
    this.clones = this.clones.filter((clone) => !ready.includes(clone));
    for (const { path } of ready) {
      const member = new Member(this, path);
      member.young = true;
      member.start();
      this.members.push(member);
    }
  }

  /** Each node is the law at its cursors, and its pending entries over it. */
  check(members: readonly Member[] = this.members): void {
    for (const law of this.laws) law.advance();
    for (const member of members) {
      if (member.young && !this.ending) continue;
      const cursors = new Map(
        member.rows("SELECT shard, cursor FROM __marmot__cursors").map((
          [shard, cursor],
        ) => [Number(shard), Number(cursor)]),
      );
      const expected = copyOf(this.laws[0]!.states[0]!);
      this.laws.forEach((law, shard) => {
        for (const [name, rows] of law.states[cursors.get(shard) ?? 0]!) {
          for (const [key, row] of rows) expected.get(name)!.set(key, row);
        }
      });
      for (const change of member.pending()) put(expected, this.tables.get(change.table)!, change);
      for (const [name, table] of this.tables) {
        const values = table.columns.map((column) => `quote("${column}")`).join();
        const rows = member.rows(`SELECT ${values} FROM ${name}`).sort();
        const wanted = [...expected.get(name)!.values()].map((row) => table.columns.map((c) => row.get(c)!)).sort();
        assert.deepEqual(rows, wanted, `I1: ${name} of node ${member.id.slice(0, 4)}`);
      }
      const pair = member.rows("SELECT DISTINCT n FROM pair");
      if (this.variant.shards === 1) assert.ok(pair.length < 2, "I4: half of a transaction is visible");
      assert.equal(member.process?.conflict, undefined);
    }
  }
}

function open(path: string): DatabaseSync {
  const app = new DatabaseSync(path, { enableForeignKeyConstraints: false });
  app.exec("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF");
  return app;
}

function log(table: string): string {
  return `__marmot__${table}_change_log`;
}

/** A lock passes; everything else fails the history. */
function unlessLocked(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!/database is locked/.test(String(error))) throw error;
  }
}

/** One random step of a member. @returns whether its file went back in time */
async function step(world: World, member: Member, travels: boolean): Promise<boolean> {
  const { random } = world;
  const shard = random.below(world.streams.length);
  const x = random.next();
  world.now += random.pick([1, 100, 1000]);
  if (member.process === undefined && random.below(4) === 0) unlessLocked(() => member.start());
  const { process } = member;
  if (x < 0.18) member.write();
  else if (x < 0.45) {
    unlessLocked(() => process?.publish(shard, random.below(3)));
    await settle();
    unlessLocked(() => process?.publish(shard, 1 + random.below(3)));
  } else if (x < 0.7) {
    process?.receive(shard, 1 + random.below(8));
    unlessLocked(() => process?.apply(shard));
  } else if (x < 0.95) travelOn(world, shard);
  else if (x < 0.96) member.crash();
  else if (x < 0.97) process?.shards[shard]?.publisher.restart("the history wants it");
  else if (x < 0.983) member.save();
  else if (x < 0.988 && world.members.length + world.clones.length < MOST_NODES) member.clone();
  else if (travels && member.copies.length > 0) {
    member.travel(random.pick(member.copies));
    return true;
  }
  return false;
}

/** Some of what is on its way arrives, arrives and comes again, or is lost; seldom out of order. */
function travelOn({ random, streams, trouble }: World, shard: number): void {
  const stream = streams[shard]!;
  for (let count = 1 + random.below(8); count > 0 && stream.network.length > 0; count--) {
    const place = random.next() < trouble ? random.below(stream.network.length) : 0;
    if (random.next() >= trouble) stream.deliver(place);
    else if (random.below(2) === 0) stream.store(place);
    else stream.lose(place);
  }
}

/** Everything that is still on its way arrives or not; then all nodes come to the stream's end. */
async function finish(world: World): Promise<void> {
  const { members, streams, random } = world;
  world.ending = true;
  for (const stream of streams) {
    while (stream.network.length > 0) {
      random.below(10) < 7 ? stream.deliver() : stream.lose();
    }
  }
  await settle();
  for (let round = 0; round < LAST_ROUNDS; round++) {
    world.now += 1000;
    for (const member of members) {
      if (member.process === undefined) unlessLocked(() => member.start());
      for (const shard of streams.keys()) {
        member.process?.receive(shard, 3);
        unlessLocked(() => member.process?.apply(shard));
        unlessLocked(() => member.process?.publish(shard));
      }
    }
    await settle();
    for (const stream of streams) stream.flush();
    await settle();
    const there = members.every(({ process }) =>
      streams.every(({ messages }, i) => process?.applier.cursor(i).sequence === messages.length)
    );
    if (there && members.every((member) => member.pending().length === 0)) return world.check();
  }
  assert.fail("pending for ever");
}

async function history(seed: number, folder: string): Promise<void> {
  const random = new Random(seed);
  const world = new World(random, folder);
  try {
    const travels = random.below(2) === 0;
    const steps = 40 + random.below(120);
    let travelled = false;
    for (let i = 0; i < steps; i++) {
      const member = random.pick(world.members);
      travelled = await step(world, member, travels) || travelled;
      await settle();
      world.startClones();
      world.check([member]);
    }
    await finish(world);
    const accepted = new Set(world.laws.flatMap(({ changes }) => changes.map(({ change }) => change.stamp)));
    for (const { must, id } of world.members) {
      for (const stamp of must) assert.ok(accepted.has(stamp), `a write of ${id.slice(0, 4)} is lost`);
    }
    if (!travelled) { for (const law of world.laws) inOrder(world, law); }
  } finally {
    for (const { process, app } of world.members) {
      process?.close();
      app.close();
    }
  }
}

/** No old value landed over a newer one of the same node. */
function inOrder({ written, tables }: World, { changes }: Law): void {
  const last = new Map<string, number>();
  for (const { origin, change } of changes) {
    const place = written.get(change.stamp)!;
    const what = `${origin} ${change.table} ${keyOf(tables.get(change.table)!, change.row)}`;
    assert.ok(place > (last.get(what) ?? -1), "an old value landed over a newer one");
    last.set(what, place);
  }
}

test("after every step of random histories each node is what the law says, and in the end all are equal", async () => {
  const first = Number(env.MARMOT_SEED ?? 1);
  const last = env.MARMOT_SEED === undefined ? Number(env.MARMOT_HISTORIES ?? HISTORIES) : first;
  for (let seed = first; seed <= last; seed++) {
    const folder = mkdtempSync(join(tmpdir(), "marmot-history-"));
    try {
      await history(seed, folder);
    } catch (error) {
      throw new Error(`history of seed ${seed} (MARMOT_SEED=${seed}): ${error}`, { cause: error });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
});
