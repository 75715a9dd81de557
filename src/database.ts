/** The subset of a SQLite connection that Marmot uses; node:sqlite's DatabaseSync fills it (sqlite/connection.ts). */

/** A value as the driver reads and binds it: INTEGER is always bigint when read. */
export type DriverValue = null | bigint | number | string | Uint8Array;
export type Row = DriverValue[];

export interface Statement {
  /** @returns how many rows changed, triggers not counted */
  run(...params: DriverValue[]): number;
  get(...params: DriverValue[]): Row | undefined;
  all(...params: DriverValue[]): Row[];
}

/** SQLite's authorizer: see sqlite.org/c3ref/set_authorizer.html; called while a statement is compiled. */
export type Authorizer = (
  action: number,
  first: string | null,
  second: string | null,
  database: string | null,
  trigger: string | null,
) => number;

export interface FunctionOptions {
  readonly varargs: boolean;
  /** SQLite refuses any other function in an index, and with it the whole schema */
  readonly deterministic: boolean;
}

export interface Database {
  readonly path: string;
  /** what the path led to right before it was opened; 0 when that was nothing. Another file may have its place by now. */
  readonly inode: bigint;
  prepare(sql: string): Statement;
  exec(sql: string): void;
  setAuthorizer(authorizer: Authorizer | null): void;
  function(name: string, options: FunctionOptions, implementation: (...args: DriverValue[]) => DriverValue): void;
  close(): void;
}
