import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeMessage } from "../src/change_codec.ts";
import type { Database } from "../src/database.ts";
import { ChangeLog } from "../src/sqlite/change_log.ts";
import { openDatabase } from "../src/sqlite/connection.ts";
import { corePair } from "./support/core_pair.ts";
import { CoreNode, settle } from "./support/core_node.ts";
import { MemoryStream } from "./support/memory_stream.ts";
import { tempFolder } from "./support/tmp.ts";

const SHARDS = 16;

test("a start keeps transactions whole, however high the numbers of what is pending are", async () => {
  await using pair = await corePair(
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v)",
  );
  const { a, stream } = pair;
  await pair.converged();
  a.crash();
  a.run("BEGIN; INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1, 'a'); COMMIT");
  for (const table of ["t", "u"]) a.run(`UPDATE __marmot__${table}_change_log SET seq = seq + 200000`);
  a.start();
  await pair.converged("t", "u");
  const batches = stream.messages.map(({ data }) => decodeMessage(data)).filter(({ frame }) => frame.length > 0);
  assert.equal(batches.length, 1);
});

test("a start keeps transactions whole when little is pending, with a wide gap in the numbers", async () => {
  await using pair = await corePair(
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v)",
  );
  const { a, stream } = pair;
  await pair.converged();
  a.crash();
  a.run("INSERT INTO t VALUES (1, 'a')");
  a.run("BEGIN; INSERT INTO t VALUES (2, 'b'); INSERT INTO u VALUES (2, 'b'); COMMIT");
  // as another shard leaves them, whose entries came back
  a.run("UPDATE __marmot__t_change_log SET seq = 200000 WHERE seq = 2");
  a.start();
  await pair.converged("t", "u");
  const batches = stream.messages.map(({ data }) => decodeMessage(data)).filter(({ frame }) => frame.length > 0);
  assert.equal(batches.length, 1);
});

test("entries written between an acknowledgement's commit and the next look are published", async () => {
  let between: (() => void) | undefined;
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", {
    wrap: (db) => ({
      path: db.path,
      inode: db.inode,
      prepare: (sql) => db.prepare(sql),
      exec(sql) {
        db.exec(sql);
        if (sql === "COMMIT") between?.();
      },
      setAuthorizer: (authorizer) => db.setAuthorizer(authorizer),
      function: (...args) => db.function(...args),
      close: () => db.close(),
    }),
  });
  const { a, b, stream } = pair;
  await pair.converged();
  a.run("INSERT INTO t VALUES (1, 'a'), (2, 'a'), (3, 'a')");
  a.node.publish(0);
  stream.flush();
  await settle();
  a.node.receive(0, 9);
  between = () => {
    between = undefined;
    a.run("INSERT INTO t VALUES (4, 'b'); UPDATE t SET v = 'c' WHERE id = 2");
  };
  a.node.apply(0);
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT v FROM t"), [["a"], ["c"], ["a"], ["b"]]);
});

test("an older copy of the file is told by entries that a scan has seen and nobody read", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a } = pair;
  await pair.converged("t");
  const { capture } = a.node;
  a.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
  assert.deepEqual(capture.scan(), { kind: "scanned", changes: 2 });
  assert.ok(capture.holdsWhatWasSeen());
  a.run("DELETE FROM __marmot__t_change_log WHERE seq = 2");
  assert.ok(!capture.holdsWhatWasSeen());
  a.run("DROP TABLE __marmot__t_change_log");
  assert.ok(!capture.holdsWhatWasSeen());
});

test("what piled up is published although a lock is in the way when a start cuts it into pieces", async () => {
  let [inTransaction, locked] = [false, false];
  const schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
  await using pair = await corePair(schema, {
    wrap: (db) => ({
      path: db.path,
      inode: db.inode,
      prepare(sql) {
        const statement = db.prepare(sql);
        if (sql !== 'SELECT min(seq) FROM "__marmot__t_change_log"') return statement;
        return {
          ...statement,
          get(...params) {
            if (!locked || inTransaction) return statement.get(...params);
            locked = false;
            throw new Error("database is locked");
          },
        };
      },
      exec(sql) {
        db.exec(sql);
        inTransaction = sql.startsWith("BEGIN");
      },
      setAuthorizer: (authorizer) => db.setAuthorizer(authorizer),
      function: (...args) => db.function(...args),
      close: () => db.close(),
    }),
  });
  const { a, b } = pair;
  await pair.converged();
  a.crash();
  a.run("INSERT INTO t VALUES (1, 'a')");
  const rows =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= 100000) SELECT 3, i + 1 FROM n";
  a.run(`INSERT INTO __marmot__t_change_log(op, val_id) ${rows}; UPDATE t SET v = 'b'`);
  a.start();
  locked = true;
  assert.throws(() => a.node.capture.scan(), /locked/);
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT v FROM t"), [["b"]]);
});

/** Of a table with a key and nothing else. */
const KEY_ONLY = {
  table: "t",
  columns: ["id"],
  key: [0],
  fingerprint: "",
  affinities: ["N"],
  collations: [],
  filled: new Map(),
};

test("a reader that takes one large row at a time has not several read each time", () => {
  const db = openDatabase(":memory:");
  db.exec(`CREATE TABLE __marmot__t_change_log(seq INTEGER PRIMARY KEY, op, stamp, val_id);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
      INSERT INTO __marmot__t_change_log SELECT i, 1, i, zeroblob(600000) FROM n`);
  let rows = 0;
  const prepare = (sql: string) => {
    const statement = db.prepare(sql);
    const all: typeof statement.all = (...params) => {
      const found = statement.all(...params);
      rows += found.length;
      return found;
    };
    return { ...statement, all };
  };
  const log = new ChangeLog({ ...db, prepare } as Database, KEY_ONLY, "UTF-8");
  for (let seq = 0; seq < 40; seq++) {
    const [change] = log.read(seq, 40, 40);
    assert.equal(change?.seq, seq + 1);
  }
  assert.ok(rows <= 40 + 16, `${rows} rows`);
  db.close();
});

test("entries are deleted by their numbers, neighbours or not, in any order, and no others", () => {
  const db = openDatabase(":memory:");
  db.exec("CREATE TABLE __marmot__t_change_log(seq INTEGER PRIMARY KEY, op, stamp, val_id)");
  const log = new ChangeLog(db, KEY_ONLY, "UTF-8");
  for (const seqs of [[5], [2, 3, 4, 5, 6, 7, 8, 9], [9, 1, 5], [10, 2, 4, 3], [1, 2, 3, 4, 7, 8, 9, 10]]) {
    db.exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)
      INSERT OR REPLACE INTO __marmot__t_change_log SELECT i, 1, i, i FROM n`);
    log.deleteSeqs(seqs);
    const left = db.prepare("SELECT seq FROM __marmot__t_change_log").all().map(([seq]) => Number(seq));
    assert.deepEqual(left, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].filter((seq) => !seqs.includes(seq)));
  }
  db.close();
});

test("a batch of many shards is large, and that of a table that is on one of them as a whole is not", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const app = openDatabase(path);
  app.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const streams = Array.from({ length: SHARDS }, (_, shard) => new MemoryStream(`changes-${shard + 1}`));
  for (const placement of ["rows", "whole"] as const) {
    const node = new CoreNode({ path, streams, hex: (digits) => "a".repeat(digits) });
    const { capture, targets, installed } = node;
    capture.useSchema(targets.logs, new Map([["t", { placement, home: "t" }]]), installed.version);
    for (let i = 0; i < 40; i++) {
      app.exec("WITH r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 100) INSERT INTO t(v) SELECT n FROM r");
      capture.scan();
    }
    const parts = streams.map((_, shard) => capture.read(shard, 0)?.changes ?? 0);
    if (placement === "rows") assert.equal(parts.reduce((sum, changes) => sum + changes), 4_000);
    else assert.equal(Math.max(...parts), 400);
    node.close();
    app.exec("DELETE FROM t; DELETE FROM __marmot__t_change_log");
  }
  app.close();
});
