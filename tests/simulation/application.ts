/** What the application of a node does: transactions of all shapes, while nobody asks it to wait for Marmot. */
import type { Random } from "../support/random.ts";
import { migratingStatement, type Migrations, rebuiltTable } from "./migrations.ts";
import type { SimulatedNode } from "./node.ts";
import { mayMigrate } from "./operator.ts";
import type { TableSpec } from "./tables.ts";

/** A failure of a statement of Marmot's. */
export interface StatementFault {
  /** the next COMMIT, that writes, that creates, or that is compiled or executed at all, after so many others */
  readonly kind: "commit" | "write" | "create" | "any";
  after: number;
  readonly message: string;
}

/** More than a cluster ever has */
const MOST_NODES = 16;
/** Triggers that call each other may write a hundred thousand rows in one statement, and a history would take hours. */
const MOST_CHANGES = 1_000;
const REFUSED = /constraint failed|datatype mismatch|cannot store|trigger recursion|triggers nested too deep/;
const LOCKED = /database (table )?is locked|database schema is locked/;

export class Application {
  /** a transaction that is open, and holds the write lock */
  held: object | undefined;

  constructor(private readonly node: SimulatedNode) {}

  get holding(): boolean {
    return this.held !== undefined;
  }

  /** One transaction. @returns whether it was committed */
  write(): boolean {
    const { world, file } = this.node;
    if (this.holding || this.awaitsCapture) return false;
    try {
      file.app.exec("BEGIN IMMEDIATE");
      this.runAll();
      return this.end();
    } catch (error) {
      this.giveUp(error);
      world.counters.add("application transactions refused");
      return false;
    }
  }

  /** A table was rebuilt: what is written to it before Marmot has seen that is not promised to travel. */
  private get awaitsCapture(): boolean {
    const { file, rebuilt } = this.node;
    if (rebuilt === undefined) return false;
    if (file.has(`__marmot__${rebuilt}_insert`)) this.node.rebuilt = undefined;
    return this.node.rebuilt !== undefined;
  }

  /** Takes the write lock, writes, and lets go of it later. */
  hold(ms: number): void {
    const { world, file } = this.node;
    if (this.holding || this.awaitsCapture) return;
    try {
      file.app.exec("BEGIN IMMEDIATE");
    } catch (error) {
      return this.giveUp(error);
    }
    this.held = {};
    world.counters.add("locks held");
    const { app } = file;
    try {
      this.runAll();
    } catch (error) {
      this.held = undefined;
      return this.giveUp(error);
    }
    world.time.after(ms, () => {
      if (!this.holding || file.app !== app) return;
      this.held = undefined;
      try {
        this.end();
      } catch (error) {
        this.giveUp(error);
      }
    });
  }

  /** A change of the schema. */
  change(sql: string): boolean {
    const { world: { setting: { migrations } }, file, changes } = this.node;
    if (this.holding || this.awaitsCapture) return false;
    if (migrations !== undefined && !mayMigrate(file, sql, migrations, changes)) return false;
    try {
      this.node.file.app.exec(sql);
      this.node.world.trace(this.node.name, () => `  ${sql}`);
      this.node.world.counters.add("changes of a schema");
      this.node.changes++;
      this.node.rebuilt = rebuiltTable(sql) ?? this.node.rebuilt;
      this.node.changed = true;
      this.node.world.record(this.node);
      this.node.alive?.fileChanged(false);
      return true;
    } catch (error) {
      this.giveUp(error);
      return false;
    }
  }

  /** The file is replaced: the transaction that was open is gone with it. */
  letGo(): void {
    if (!this.holding) return;
    this.held = undefined;
    this.node.file.app.exec("ROLLBACK");
  }

  private end(): boolean {
    const { world, file } = this.node;
    const rollsBack = world.random.below(15) === 0;
    world.trace(this.node.name, () => rollsBack ? "  ROLLBACK" : "  COMMIT");
    file.app.exec(rollsBack ? "ROLLBACK" : "COMMIT");
    if (rollsBack) return false;
    world.counters.add("application transactions");
    this.node.changed = true;
    world.record(this.node);
    this.node.alive?.fileChanged(false);
    return true;
  }

  private giveUp(error: unknown): void {
    const text = String(error);
    if (this.node.file.app.isTransaction) this.node.file.app.exec("ROLLBACK");
    if (!REFUSED.test(text) && !LOCKED.test(text)) throw error;
  }

  private runAll(): void {
    const before = this.changesSoFar();
    for (const sql of this.statements()) this.run(sql);
    if (this.changesSoFar() - before > MOST_CHANGES) throw new Error("triggers nested too deep: too many changes");
  }

  /** Those of triggers included. */
  private changesSoFar(): number {
    return Number(this.node.file.app.prepare("SELECT total_changes() AS n").get()!.n);
  }

  /** A constraint may refuse a statement; then the rest of the transaction goes on, as many applications do it. */
  private run(sql: string): void {
    this.node.world.trace(this.node.name, () => `  ${sql}`);
    try {
      this.node.file.app.exec(sql);
    } catch (error) {
      if (!REFUSED.test(String(error)) || !this.node.file.app.isTransaction) throw error;
    }
  }

  private migrating({ tables, renames }: Migrations): string {
    const { world, changes } = this.node;
    const row = world.random.below(8);
    const own = MOST_NODES * row + world.nodes.indexOf(this.node);
    return migratingStatement(tables[changes]!, renames ? own : row, world.random);
  }

  private statements(): string[] {
    const { world } = this.node;
    const { random, setting } = world;
    const own = setting.tables.filter(({ name }) => name !== "pair" && name !== "ledger");
    const statements = Array.from(
      { length: 1 + random.below(random.below(6) === 0 ? 10 : 3) },
      () => setting.migrations === undefined ? statement(random.pick(own), random) : this.migrating(setting.migrations),
    );
    if (random.below(3) === 0) {
      const n = world.next();
      statements.splice(random.below(statements.length + 1), 0, `REPLACE INTO pair VALUES (1, ${n})`);
      statements.push(`REPLACE INTO pair VALUES (2, ${n})`);
    }
    if (random.below(3) === 0) statements.push(`INSERT INTO ledger VALUES ('${this.node.name}-${world.next()}', 1)`);
    if (random.below(6) > 0) return statements;
    const place = random.below(statements.length);
    const end = random.below(2) === 0 ? "ROLLBACK TO s; RELEASE s" : "RELEASE s";
    // both of the pair, or none
    if (!statements[place]!.includes("pair")) statements[place] = `SAVEPOINT s; ${statements[place]}; ${end}`;
    return statements;
  }
}

function statement({ name, columns, key, value }: TableSpec, random: Random): string {
  const one = () => `(${columns.map((column) => value(column, random)).join(", ")})`;
  const list = columns.join(", ");
  const where = `${key.map((column) => `${column} IS ${value(column, random)}`).join(" AND ")}`;
  const rest = columns.filter((column) => !key.includes(column));
  const column = random.pick(rest);
  const set = `${column} = ${value(column, random)}`;
  const keyColumn = random.pick(key);
  const x = random.below(100);
  if (x < 25) return `REPLACE INTO ${name}(${list}) VALUES ${one()}`;
  if (x < 35) return `INSERT INTO ${name}(${list}) VALUES ${one()}`;
  if (x < 43) return `INSERT OR IGNORE INTO ${name}(${list}) VALUES ${one()}, ${one()}, ${one()}`;
  if (x < 52) {
    return `INSERT INTO ${name}(${list}) VALUES ${one()} ON CONFLICT DO UPDATE SET ${column} = excluded.${column}`;
  }
  if (x < 65) return `UPDATE OR REPLACE ${name} SET ${set} WHERE ${where}`;
  if (x < 71) return `UPDATE ${name} SET ${set} WHERE ${column} IS ${value(column, random)}`;
  // a row that takes the place of its own parent goes with it
  const taken = name === "tree" && random.below(2) === 0 ? "coalesce(v, id)" : value(keyColumn, random);
  if (x < 80) return `UPDATE OR REPLACE ${name} SET ${keyColumn} = ${taken} WHERE ${where}`;
  if (x < 92) return `DELETE FROM ${name} WHERE ${where}`;
  if (x < 94) return `DELETE FROM ${name}`;
  return `REPLACE INTO ${name}(${list}) VALUES ${one()}, ${one()}, ${one()}, ${one()}`;
}
