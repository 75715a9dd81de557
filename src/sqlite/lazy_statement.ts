/** A statement that is compiled at its first use: most of a database's tables see no change for a long time. */
import type { Database, DriverValue, Row, Statement } from "../database.ts";

export class LazyStatement implements Statement {
  private compiled: Statement | undefined;

  constructor(private readonly db: Database, private readonly sql: () => string) {}

  run(...params: DriverValue[]): number {
    return this.statement.run(...params);
  }

  get(...params: DriverValue[]): Row | undefined {
    return this.statement.get(...params);
  }

  all(...params: DriverValue[]): Row[] {
    return this.statement.all(...params);
  }

  private get statement(): Statement {
    return this.compiled ??= this.db.prepare(this.sql());
  }
}
