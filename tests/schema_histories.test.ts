/**
 * Random migrations, made on one node and later on the other, while both go on writing: nothing stops, nothing is lost, and
 * in the end both are equal. Where tables are renamed the nodes write rows of their own: what one node says of a name that
 * the other does not know yet waits there, and comes late.
 */
import assert from "node:assert/strict";
import { env } from "node:process";
import { test } from "node:test";
import { type CoreMember, corePair } from "./support/core_pair.ts";
import { settle } from "./support/core_node.ts";
import { Random } from "./support/random.ts";

const HISTORIES = 40;
const STEPS = 60;

/** Tables, and their columns besides id: name → whether it must be unique */
type Tables = Map<string, Map<string, boolean>>;

interface Migration {
  readonly sql: string;
  readonly apply: (tables: Tables) => void;
}

const id = (name: string) => `"${name}"`;
const NAMES = ["order", "a b", "x-y", "Ünï", "it's", "select", "n", "V", "(", "🐟", "a.b", "val_n"];

class Migrations {
  private count = 0;
  constructor(private readonly random: Random, private readonly renames: boolean) {}

  private name(): string {
    return `${this.random.pick(NAMES)}${++this.count}`;
  }

  next(tables: Tables): Migration {
    const { random } = this;
    const table = random.pick([...tables.keys()]);
    const columns = tables.get(table)!;
    const column = columns.size > 0 ? random.pick([...columns.keys()]) : undefined;
    const make = random.pick([
      () => this.addColumn(table),
      () => this.addColumn(table),
      () => this.create(),
      () => this.renames ? this.renameTable(table) : this.addColumn(table),
      () => column === undefined ? this.addColumn(table) : this.renameColumn(table, column),
      () => this.rebuild(table, columns),
      () => column === undefined ? this.create() : this.addIndex(table, column),
      () => this.addTrigger(table),
      () => tables.size > 2 ? this.dropTable(table) : this.create(),
    ]);
    return make();
  }

  private addColumn(table: string): Migration {
    const column = this.name();
    const value = this.random.pick([
      "",
      " DEFAULT 7",
      ' DEFAULT "x"',
      " NOT NULL DEFAULT 'none'",
      " TEXT DEFAULT NULL",
    ]);
    return {
      sql: `ALTER TABLE ${id(table)} ADD COLUMN ${id(column)}${value}`,
      apply: (tables) => tables.get(table)!.set(column, false),
    };
  }

  private create(): Migration {
    const [table, column] = [this.name(), this.name()];
    return {
      sql: `CREATE TABLE ${id(table)}(id INTEGER PRIMARY KEY, ${id(column)})`,
      apply: (tables) => tables.set(table, new Map([[column, false]])),
    };
  }

  private renameTable(table: string): Migration {
    const now = this.name();
    return {
      sql: `ALTER TABLE ${id(table)} RENAME TO ${id(now)}`,
      apply(tables) {
        tables.set(now, tables.get(table)!);
        tables.delete(table);
      },
    };
  }

  private renameColumn(table: string, column: string): Migration {
    const now = this.name();
    return {
      sql: `ALTER TABLE ${id(table)} RENAME COLUMN ${id(column)} TO ${id(now)}`,
      apply(tables) {
        const columns = [...tables.get(table)!];
        tables.set(table, new Map(columns.map(([name, unique]) => [name === column ? now : name, unique])));
      },
    };
  }

  /** As migrations do it: a new table, its rows copied, under the old name. A column is dropped, and one is new. */
  private rebuild(table: string, columns: ReadonlyMap<string, boolean>): Migration {
    const kept = [...columns.keys()].filter((name) => columns.get(name) || this.random.below(3) > 0);
    const added = this.name();
    const names = ["id", ...kept.map(id)].join(", ");
    const declared = kept.map((name) => `, ${id(name)}${columns.get(name) ? " UNIQUE" : ""}`).join("");
    const copy = id(`new__${table}`);
    return {
      sql: `BEGIN; CREATE TABLE ${copy}(id INTEGER PRIMARY KEY, ${id(added)} DEFAULT 3${declared});
        INSERT INTO ${copy}(${names}) SELECT ${names} FROM ${id(table)}; DROP TABLE ${id(table)};
        ALTER TABLE ${copy} RENAME TO ${id(table)}; COMMIT`,
      apply: (tables) => {
        tables.set(table, new Map([[added, false], ...kept.map((name) => [name, columns.get(name)!] as const)]));
      },
    };
  }

  private addIndex(table: string, column: string): Migration {
    return {
      sql: `UPDATE ${id(table)} SET ${id(column)} = 'u' || id;
        CREATE UNIQUE INDEX ${id(this.name())} ON ${id(table)}(${id(column)})`,
      apply: (tables) => tables.get(table)!.set(column, true),
    };
  }

  private dropTable(table: string): Migration {
    return { sql: `DROP TABLE ${id(table)}`, apply: (tables) => tables.delete(table) };
  }

  private addTrigger(table: string): Migration {
    const sql = `CREATE TRIGGER ${id(this.name())} AFTER INSERT ON ${id(table)} BEGIN
      UPDATE ${id(table)} SET id = id WHERE id = NEW.id; INSERT INTO audit VALUES (NEW.id); END`;
    return { sql, apply: () => {} };
  }
}

/** Writes a row, or deletes it. */
function write(member: CoreMember, tables: Tables, random: Random, key: number): void {
  const table = random.pick([...tables.keys()]);
  const columns = [...tables.get(table)!];
  const value = (column: string, unique: boolean) =>
    unique ? `'u' || ${key}` : String(random.below(100) + column.length);
  const x = random.below(5);
  if (x === 0) member.run(`DELETE FROM ${id(table)} WHERE id = ${key}`);
  else if (x < 3 && columns.length > 0) {
    const [column, unique] = random.pick(columns);
    member.run(`UPDATE ${id(table)} SET ${id(column)} = ${value(column, unique)} WHERE id = ${key}`);
  } else {
    const names = ["id", ...columns.map(([name]) => id(name))].join(", ");
    const values = [key, ...columns.map(([name, unique]) => value(name, unique))].join(", ");
    member.run(`INSERT OR REPLACE INTO ${id(table)}(${names}) VALUES (${values})`);
  }
}

/** Marmot's turn, on one of the nodes. */
async function work(member: CoreMember, random: Random): Promise<void> {
  const { node } = member;
  node.publish(0);
  await settle();
  node.publish(0, 1 + random.below(3));
  node.receive(0, 1 + random.below(4));
  node.apply(0);
  if (random.below(3) === 0) node.layParked();
  if (random.below(12) === 0) member.restart();
}

async function history(seed: number): Promise<void> {
  const random = new Random(seed);
  const renames = random.below(2) === 0;
  const hex = (digits: number) => random.hex(digits);
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE audit(x)", { hex });
  const members = [pair.a, pair.b];
  const schemas: Tables[] = members.map(() => new Map([["t", new Map([["v", false]])]]));
  const migrations = new Migrations(random, renames);
  const waiting: Migration[] = [];
  const migrate = (place: number, migration: Migration) => {
    members[place]!.run(migration.sql);
    migration.apply(schemas[place]!);
    members[place]!.node.publish(0);
  };
  const said: string[] = [];
  try {
    for (let i = 0; i < STEPS; i++) {
      const place = random.below(2);
      const x = random.below(12);
      if (x === 0) {
        const migration = migrations.next(schemas[0]!);
        said.push(migration.sql);
        migrate(0, migration);
        waiting.push(migration);
      } else if (x === 1 && waiting.length > 0) migrate(1, waiting.shift()!);
      else if (x < 6) {
        const row = random.below(8);
        write(members[place]!, schemas[place]!, random, renames ? 2 * row + place : row);
      } else if (x < 8) pair.stream.flush();
      else await work(members[place]!, random);
    }
    for (const migration of waiting) migrate(1, migration);
    await pair.converged();
    for (const table of schemas[0]!.keys()) {
      const columns = ["id", ...[...schemas[0]!.get(table)!.keys()].map(id)].join(", ");
      const sql = `SELECT ${columns} FROM ${id(table)} ORDER BY id`;
      assert.deepEqual(pair.b.rows(sql), pair.a.rows(sql), table);
    }
    for (const { node } of members) assert.deepEqual(node.applier.parkedTables, []);
  } catch (error) {
    throw new Error(`after ${said.join(";\n")}: ${error}`, { cause: error });
  }
}

test("whatever migrations there are, nodes that migrate at different times are equal in the end", async () => {
  const first = Number(env.MARMOT_SEED ?? 1);
  const last = env.MARMOT_SEED === undefined ? Number(env.MARMOT_HISTORIES ?? HISTORIES) : first;
  for (let seed = first; seed <= last; seed++) {
    try {
      await history(seed);
    } catch (error) {
      throw new Error(`history of seed ${seed} (MARMOT_SEED=${seed}): ${error}`, { cause: error });
    }
  }
});
