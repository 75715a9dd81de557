/** What docs/DESIGN.md asks of those who migrate a database under Marmot. */
import type { Database } from "../../src/database.ts";
import { fold } from "../../src/sqlite/quote.ts";
import { readSchema, type Schema } from "../../src/sqlite/schema.ts";
import type { NodeFile } from "./file.ts";
import type { Migrations } from "./migrations.ts";

/** Takes no name and no constraint away. */
const ADDS = /^(CREATE TABLE|ALTER TABLE ".*" ADD COLUMN) /;

/**
 * A table, column or constraint that comes and goes before Marmot has looked stays unknown to it, and what other nodes say
 * of it is parked for ever: so what takes something away waits until Marmot has taken up what was added.
 */
export function mayMigrate(file: NodeFile, sql: string, migrations: Migrations, changes: number): boolean {
  return ADDS.test(sql) || isTakenUp(file, migrations, changes);
}

/** The tables after so many changes: the same on all nodes */
const tablesAfter = new WeakMap<Migrations, Map<number, Schema["tables"]>>();

/** Does Marmot know the schema as it is, after so many changes? */
export function isTakenUp(file: NodeFile, migrations: Migrations, changes: number): boolean {
  let tables = tablesAfter.get(migrations);
  if (tables === undefined) tablesAfter.set(migrations, tables = new Map());
  if (!tables.has(changes)) tables.set(changes, tablesOf(file));
  const known = new Map(
    file.rows("SELECT name, shape FROM __marmot__tables WHERE state = 'captured'").map(([name, shape]) => {
      return [fold(String(name)), JSON.parse(String(shape))];
    }),
  );
  const types = new Map(
    file.rows("SELECT table_name || ' ' || name, affinities FROM __marmot__columns").map((row) => {
      return [String(row[0]), String(row[1])];
    }),
  );
  return [...tables.get(changes)!].every(([name, { fingerprint, affinities, columns }]) => {
    const shape = known.get(name);
    return shape?.fingerprint === fingerprint && String(shape.columns) === String(columns) &&
      columns.every((column, place) => types.get(`${name} ${fold(column)}`)?.endsWith(affinities[place]!));
  });
}

function tablesOf({ reader }: NodeFile): Schema["tables"] {
  const prepare = (sql: string) => {
    const statement = reader.prepare(sql);
    statement.setReturnArrays(true);
    return statement;
  };
  return readSchema({ prepare } as unknown as Database, false).tables;
}
