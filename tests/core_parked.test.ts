/** Changes that wait for a schema: what is known of them in memory, whatever keeps a transaction from its end. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Database } from "../src/database.ts";
import { settle } from "./support/core_node.ts";
import { corePair } from "./support/core_pair.ts";

/** The database is locked when a statement that holds the first of these is run, and then for the next of them. */
function locking(db: Database, due: string[]): Database {
  const free = <T>(sql: string, run: () => T): T => {
    if (due.length === 0 || !sql.includes(due[0]!)) return run();
    due.shift();
    throw new Error("database is locked");
  };
  return {
    path: db.path,
    inode: db.inode,
    prepare(sql) {
      const statement = db.prepare(sql);
      return {
        run: (...params) => free(sql, () => statement.run(...params)),
        get: (...params) => free(sql, () => statement.get(...params)),
        all: (...params) => free(sql, () => statement.all(...params)),
      };
    },
    exec: (sql) => free(sql, () => db.exec(sql)),
    setAuthorizer: (authorizer) => db.setAuthorizer(authorizer),
    function: (name, options, implementation) => db.function(name, options, implementation),
    close: () => db.close(),
  };
}

test("later changes wait behind those that are parked, also after a lock undid a transaction and what would be read then", async () => {
  const due: string[] = [];
  const schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
  await using pair = await corePair(schema, { wrap: (db) => locking(db, due) });
  const { a, b, stream } = pair;
  await pair.converged("t");
  a.run("ALTER TABLE t ADD COLUMN c; INSERT INTO t VALUES (1, 'first', 1)");
  await pair.converged();
  assert.deepEqual(b.node.applier.parkedTables.map(({ table }) => table), ["t"]);
  const parked = { ...b.node.applier.parkedTables[0] };
  a.run("UPDATE t SET v = 'second'");
  a.node.publish(0);
  stream.flush();
  await settle();
  b.node.receive(0, Infinity);
  due.push("COMMIT", "__marmot__parked");
  assert.throws(() => b.node.apply(0), /locked/);
  due.length = 0;
  assert.deepEqual(b.node.applier.parkedTables, [parked]);
  b.run("ALTER TABLE t ADD COLUMN c");
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t"), [[1, "second", 1]]);
});

test("a parked table that has its schema, and refuses a row, says why", async () => {
  const other = "CREATE TABLE t(id INTEGER PRIMARY KEY, v ANY) STRICT";
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v, c INTEGER)", { other });
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'x', 'text')");
  await pair.converged();
  assert.deepEqual(b.node.applier.parkedTables.map(({ reason }) => reason), ["this node has no column c"]);
  b.run("ALTER TABLE t ADD COLUMN c INTEGER");
  await pair.converged();
  assert.match(b.node.applier.parkedTables[0]!.reason, /cannot store TEXT value in INTEGER column/);
});
