/** What docs/DESIGN.md asks of those who migrate a database under Marmot. */
import type { Database } from "../../src/database.ts";
import { fold } from "../../src/sqlite/quote.ts";
import { readSchema } from "../../src/sqlite/schema.ts";
import type { NodeFile } from "./file.ts";

/** Takes no name and no constraint away. */
const ADDS = /^(CREATE TABLE|ALTER TABLE ".*" ADD COLUMN) /;

/**
 * A table, column or constraint that comes and goes before Marmot has looked stays unknown to it, and what other nodes say
 * of it is parked for ever: so what takes something away waits until Marmot has taken up what was added.
 */
export function mayMigrate(file: NodeFile, sql: string): boolean {
  return ADDS.test(sql) || isTakenUp(file);
}

/** Does Marmot know the schema as it is? */
export function isTakenUp({ reader }: NodeFile): boolean {
  const prepare = (sql: string) => {
    const statement = reader.prepare(sql);
    statement.setReturnArrays(true);
    return statement;
  };
  const known = new Map(
    prepare("SELECT name, shape FROM __marmot__tables WHERE state = 'captured'").all().map((row) => {
      const [name, shape] = row as unknown as [string, string];
      return [fold(name), JSON.parse(shape)];
    }),
  );
  const { tables } = readSchema({ prepare } as unknown as Database, false);
  return [...tables].every(([name, { fingerprint, columns }]) => {
    const shape = known.get(name);
    return shape?.fingerprint === fingerprint && String(shape.columns) === String(columns);
  });
}
