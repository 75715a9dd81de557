import assert from "node:assert/strict";
import { test } from "node:test";
import { corePair } from "./support/core_pair.ts";

for (const value of ['"active"', "active", "[act ive]", "`it's`", "'x'", "TRUE", "-5", "NULL", "x'00'", "+3.5"]) {
  test(`a column is added with DEFAULT ${value} while entries are pending`, async () => {
    await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    const { a, b } = pair;
    a.run("INSERT INTO t VALUES (1, 'a'); INSERT INTO t VALUES (2, 'a'); DELETE FROM t WHERE id = 2");
    for (const { app } of [a, b]) app.exec(`ALTER TABLE t ADD COLUMN c DEFAULT ${value}`);
    await pair.converged("t");
  });
}

test("what is pending in a table is published although it is excluded at the next start", async () => {
  let exclude: string[] = [];
  const patterns = {
    include: [],
    get exclude() {
      return exclude;
    },
  };
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", { patterns });
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'a')");
  a.crash();
  exclude = ["t"];
  a.start();
  exclude = [];
  await pair.converged();
  assert.deepEqual(b.rows("SELECT * FROM t"), [[1, "a"]]);
});

for (const remade of [false, true]) {
  const also = remade ? ", and another takes its place" : "";
  test(`what is pending in a table is published although it gets a name that is not replicated${also}`, async () => {
    await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    const { a, b } = pair;
    a.run("INSERT INTO t VALUES (1, 'a')");
    await pair.converged("t");
    a.run("UPDATE t SET v = 'b'; ALTER TABLE t RENAME TO temporary_t");
    a.node.install();
    if (remade) {
      a.run("BEGIN; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t SELECT * FROM temporary_t; COMMIT");
    }
    a.run("UPDATE temporary_t SET v = 'c'");
    await pair.converged();
    assert.deepEqual(b.rows("SELECT v FROM t"), [["b"]]);
    a.node.install();
    const logs = a.rows("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%change_log'");
    assert.deepEqual(logs, [[remade ? 1 : 0]]);
  });
}

const REBUILD =
  `BEGIN; INSERT INTO t_copy SELECT id, v, NULL FROM t; DROP TABLE t; ALTER TABLE t_copy RENAME TO t; COMMIT`;
const COPY = "CREATE TABLE t_copy(id INTEGER PRIMARY KEY, v, w)";

for (const running of [true, false]) {
  const when = running ? "before Marmot saw it" : "while Marmot was down";
  test(`writes to a rebuilt table arrive, made ${when} through the triggers of its copy`, async () => {
    await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    const { a, b } = pair;
    a.run("INSERT INTO t VALUES (1, 'a')");
    await pair.converged("t");
    a.run(COPY);
    b.run(`BEGIN; ${COPY}; COMMIT; ${REBUILD}`);
    await pair.converged();
    if (!running) a.crash();
    a.run(REBUILD);
    a.run("INSERT INTO t VALUES (2, 'b', 1); UPDATE t SET v = 'new' WHERE id = 1");
    if (!running) a.start();
    await pair.converged("t");
    assert.deepEqual(b.rows("SELECT * FROM t"), [[1, "new", null], [2, "b", 1]]);
  });
}

test("a table that is rebuilt with another primary key, and a new column before it, is followed", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'a'), (2, 'b'); DELETE FROM t WHERE id = 2");
  for (const { app } of [a, b]) {
    app.exec(`BEGIN; CREATE TABLE new__t(extra, uid TEXT PRIMARY KEY NOT NULL, id INTEGER, v);
      INSERT INTO new__t SELECT 'e', 'u' || id, id, v FROM t; DROP TABLE t; ALTER TABLE new__t RENAME TO t; COMMIT`);
  }
  await pair.converged("t");
  a.run("UPDATE t SET v = 'c'");
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t"), [["e", "u1", 1, "c"]]);
});

test("parked changes stay in front of later ones when their table is renamed", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'a')");
  await pair.converged("t");
  a.run("ALTER TABLE t ADD COLUMN c");
  await pair.converged();
  a.run("INSERT INTO t VALUES (2, 'b', 'c'); UPDATE t SET v = 'old' WHERE id = 1");
  await pair.converged();
  b.run("ALTER TABLE t RENAME TO u");
  await pair.converged();
  assert.deepEqual(b.node.applier.parkedTables.map(({ table }) => table), ["u"]);
  a.run("ALTER TABLE t RENAME TO u");
  await pair.converged();
  a.run("UPDATE u SET v = 'new' WHERE id = 1");
  await pair.converged();
  b.run("ALTER TABLE u ADD COLUMN c");
  await pair.converged("u");
  assert.deepEqual(b.rows("SELECT * FROM u"), [[1, "new", null], [2, "b", "c"]]);
});

test("a broken view, or a trigger with an unknown function, keeps no change of the schema from being followed", async () => {
  await using pair = await corePair(
    `CREATE TABLE t(id INTEGER PRIMARY KEY, v, w); CREATE TABLE gone(x); CREATE VIEW broken AS SELECT * FROM gone;
    DROP TABLE gone; CREATE TRIGGER told AFTER UPDATE ON t BEGIN SELECT app_tell(NEW.id); END`,
    { prepare: (app) => app.function("app_tell", { varargs: true }, () => 1) },
  );
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 2, 3)");
  for (const { app } of [a, b]) {
    app.exec(`PRAGMA legacy_alter_table = ON; BEGIN; CREATE TABLE new__t(id INTEGER PRIMARY KEY, v, x);
      INSERT INTO new__t SELECT id, v, 0 FROM t; DROP TABLE t; ALTER TABLE new__t RENAME TO t; COMMIT`);
  }
  await pair.converged();
  a.run("INSERT INTO t VALUES (2, 2, 3)");
  for (const { app } of [a, b]) app.exec("ALTER TABLE t RENAME TO u");
  a.run("INSERT INTO u VALUES (3, 2, 3)");
  await pair.converged("u");
  assert.equal(b.rows("SELECT * FROM u").length, 3);
});

test("a disk that is full while a log gets another name leaves the log as it was", async () => {
  let full = false;
  const schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
  await using pair = await corePair(schema, {
    wrap: (db) => ({
      path: db.path,
      inode: db.inode,
      prepare: (sql) => db.prepare(sql),
      exec(sql) {
        if (!full || !sql.startsWith("ALTER TABLE")) return db.exec(sql);
        // SQLite takes back the transaction by itself
        db.exec("ROLLBACK");
        throw new Error("database or disk is full");
      },
      setAuthorizer: (authorizer) => db.setAuthorizer(authorizer),
      function: (...args) => db.function(...args),
      close: () => db.close(),
    }),
  });
  const { a, b } = pair;
  await pair.converged("t");
  const changes = "INSERT INTO t VALUES (1, 'a'); ALTER TABLE t RENAME TO u";
  a.run(changes);
  b.run("ALTER TABLE t RENAME TO u");
  const logged = () => a.rows("SELECT name, sql FROM sqlite_schema WHERE name LIKE '%change_log' OR type = 'trigger'");
  const before = logged();
  full = true;
  assert.throws(() => a.node.install(), /full/);
  assert.deepEqual(logged(), before);
  full = false;
  await pair.converged("u");
  assert.deepEqual(b.rows("SELECT v FROM u"), [["a"]]);
});

test("a table that triggers update is renamed, dropped and made again", async () => {
  await using pair = await corePair(`CREATE TABLE t(id INTEGER PRIMARY KEY, v);
    CREATE TABLE s(id INTEGER PRIMARY KEY, n, u UNIQUE);
    CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE s SET n = n + 1; END; INSERT INTO s VALUES (1, 0, 0)`);
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 2)");
  b.run("INSERT INTO t VALUES (2, 2)");
  await pair.converged("t", "s");
  for (const { app } of [a, b]) app.exec("ALTER TABLE s RENAME TO s2");
  a.run("INSERT INTO t VALUES (3, 2)");
  await pair.converged("t", "s2");
  for (const { app } of [a, b]) app.exec("DROP TRIGGER x; DROP TABLE s2; ALTER TABLE t RENAME COLUMN v TO v2");
  a.run("INSERT INTO t VALUES (4, 2)");
  await pair.converged("t");
  for (const { app } of [a, b]) {
    app.exec(`CREATE TABLE s(id INTEGER PRIMARY KEY, n);
      CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE s SET n = n + 1; END`);
  }
  await pair.converged();
  a.run("INSERT INTO s VALUES (1, 0); INSERT INTO t VALUES (5, 2)");
  await pair.converged("t", "s");
  assert.deepEqual(b.rows("SELECT n FROM s"), [[1]]);
});

test("columns may take each other's names", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 2, 3)");
  await pair.converged("t");
  for (const { app } of [a, b]) {
    app.exec("ALTER TABLE t RENAME v TO x; ALTER TABLE t RENAME w TO v; ALTER TABLE t RENAME x TO w");
  }
  a.run("INSERT INTO t VALUES (2, 2, 3)");
  await pair.converged("t");
});

test("tables may take each other's names", async () => {
  await using pair = await corePair(
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v)",
  );
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 2); INSERT INTO u VALUES (1, 9)");
  await pair.converged("t", "u");
  for (const { app } of [a, b]) {
    app.exec("ALTER TABLE t RENAME TO x; ALTER TABLE u RENAME TO t; ALTER TABLE x RENAME TO u");
  }
  a.run("INSERT INTO t VALUES (2, 't'); INSERT INTO u VALUES (2, 'u')");
  await pair.converged("t", "u");
  assert.deepEqual(b.rows("SELECT * FROM t"), [[1, 9], [2, "t"]]);
});

for (const seen of [true, false]) {
  const when = seen ? "one step at a time" : "in one migration";
  test(`tables are rotated ${when}: the last is dropped, and each takes the next one's name`, async () => {
    const names = ["log_0", "log_1", "log_2"];
    const make = (name: string) => `CREATE TABLE ${name}(id INTEGER PRIMARY KEY, v)`;
    await using pair = await corePair(names.map(make).join(";"));
    const { a, b } = pair;
    for (const name of names) a.run(`INSERT INTO ${name} VALUES (1, '${name}')`);
    await pair.converged(...names);
    const renames = ["ALTER TABLE log_1 RENAME TO log_2", "ALTER TABLE log_0 RENAME TO log_1"];
    const rotation = ["DROP TABLE log_2", ...renames, make("log_0")];
    for (const { app, node } of [a, b]) {
      for (const sql of seen ? rotation : [rotation.join(";")]) {
        app.exec(sql);
        node.install();
      }
    }
    a.run("INSERT INTO log_0 VALUES (1, 'new'); UPDATE log_1 SET v = v || ' a'; INSERT INTO log_2 VALUES (2, 'a')");
    b.run("UPDATE log_2 SET v = v || ' b'");
    await pair.converged(...names);
    const rows = names.map((name) => b.rows(`SELECT v FROM ${name}`).flat());
    assert.deepEqual(rows, [["new"], ["log_0 a"], ["log_1 b", "a"]]);
  });
}

test("a message from before a rename acknowledges nothing in the table that has the old name now", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b, stream } = pair;
  await pair.converged();
  a.run("INSERT INTO t VALUES (1, 'old')");
  a.node.publish(0);
  a.run("ALTER TABLE t RENAME TO u; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  a.node.publish(0);
  a.run("INSERT INTO t VALUES (7, 'new'); INSERT INTO u VALUES (2, 'two')");
  stream.flush();
  for (const { node } of [a, b]) {
    node.receive(0, 9);
    node.apply(0);
  }
  assert.deepEqual(a.rows("SELECT val_id FROM __marmot__t_change_log"), [[7]]);
  b.run("ALTER TABLE t RENAME TO u; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  await pair.converged("t", "u");
  assert.deepEqual(b.rows("SELECT id FROM u"), [[1], [2]]);
});

test("tables that took each other's names keep what they publish apart", async () => {
  await using pair = await corePair(
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v)",
  );
  const { a, b, stream } = pair;
  await pair.converged();
  a.run("INSERT INTO t VALUES (1, 't'); INSERT INTO t VALUES (2, 't')");
  a.node.publish(0);
  for (const { app } of [a, b]) {
    app.exec("ALTER TABLE t RENAME TO x; ALTER TABLE u RENAME TO t; ALTER TABLE x RENAME TO u");
  }
  a.run("INSERT INTO t VALUES (5, 'late'); INSERT INTO u VALUES (5, 'late')");
  a.node.publish(0);
  stream.flush();
  await pair.converged();
  assert.deepEqual(b.rows("SELECT id FROM t WHERE v = 'late'"), [[5]]);
  assert.deepEqual(b.rows("SELECT id FROM u WHERE v = 'late'"), [[5]]);
});

test("changes under a UNIQUE constraint that a node never had are laid on once their origin has left it", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'first')");
  await pair.converged("t");
  a.run("CREATE UNIQUE INDEX passing ON t(v)");
  await pair.converged();
  a.run("INSERT INTO t VALUES (2, 'under it')");
  await pair.converged();
  assert.deepEqual(b.node.applier.parkedTables.map(({ table }) => table), ["t"]);
  a.run("DROP INDEX passing");
  await pair.converged();
  a.run("INSERT INTO t VALUES (3, 'after it')");
  await pair.converged();
  b.restart();
  await pair.converged("t");
  assert.deepEqual(b.node.applier.parkedTables, []);
});

test("rows from a node without a UNIQUE column do not take each other's place", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
  await pair.converged("t");
  const rebuild = (code: string) =>
    `BEGIN; CREATE TABLE new__t(id INTEGER PRIMARY KEY, v, code ${code} UNIQUE);
    INSERT INTO new__t SELECT id, v, 'code' || id FROM t; DROP TABLE t; ALTER TABLE new__t RENAME TO t; COMMIT`;
  a.run(rebuild("TEXT"));
  await pair.converged();
  b.run("INSERT INTO t VALUES (3, 'c'), (4, 'd')");
  await pair.converged();
  assert.deepEqual(a.rows("SELECT id, code FROM t ORDER BY id"), [[1, "code1"], [2, "code2"], [3, null], [4, null]]);
  a.run(rebuild("TEXT NOT NULL"));
  await pair.converged();
  b.run("INSERT INTO t VALUES (5, 'e'), (6, 'f')");
  await pair.converged();
  assert.equal(a.rows("SELECT id FROM t").length, 4);
  assert.deepEqual(a.node.applier.parkedTables.map(({ changes }) => changes), [2]);
});

for (
  const [what, columns, index] of [["an expression", "", "lower(code)"], [
    "a generated column",
    ", g AS (code || 1)",
    "g",
  ]]
) {
  test(`rows from a node without the column that ${what} under UNIQUE is made of do not take each other's place`, async () => {
    await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    const { a, b } = pair;
    a.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    await pair.converged("t");
    a.run(`BEGIN; CREATE TABLE new__t(id INTEGER PRIMARY KEY, v, code TEXT NOT NULL${columns});
      INSERT INTO new__t(id, v, code) SELECT id, v, 'code' || id FROM t; DROP TABLE t; ALTER TABLE new__t RENAME TO t;
      CREATE UNIQUE INDEX i ON t(${index}); COMMIT`);
    await pair.converged();
    b.run("INSERT INTO t VALUES (3, 'c'), (4, 'd')");
    await pair.converged();
    assert.deepEqual(a.rows("SELECT id FROM t"), [[1], [2]]);
    assert.deepEqual(a.node.applier.parkedTables.map(({ changes }) => changes), [2]);
  });
}

test("changes wait for a table that lost its primary key in a migration", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'a')");
  await pair.converged("t");
  b.run(
    "BEGIN; CREATE TABLE n(id INTEGER, v); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; COMMIT",
  );
  a.run("INSERT INTO t VALUES (2, 'b')");
  await pair.converged();
  assert.match(b.node.applier.parkedTables[0]?.reason ?? "", /no primary key/);
  b.run(`BEGIN; CREATE TABLE n(id INTEGER PRIMARY KEY, v); INSERT INTO n SELECT * FROM t; DROP TABLE t;
    ALTER TABLE n RENAME TO t; COMMIT`);
  await pair.converged("t");
});
