import assert from "node:assert/strict";
import { test } from "node:test";
import { openDatabase } from "../src/sqlite/connection.ts";
import { readSchema } from "../src/sqlite/schema.ts";
import { readTriggerSql } from "../src/sqlite/select_plan.ts";
import { TriggerPolicy } from "../src/sqlite/trigger_policy.ts";

/** Validations of an application, each refusing every row in another way. */
const REFUSALS: readonly string[] = [
  "BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'no'); END",
  "BEFORE INSERT ON t WHEN (SELECT count(*) FROM other) >= 0 BEGIN SELECT RAISE(ABORT, 'no'); END",
  "AFTER INSERT ON t WHEN EXISTS (SELECT 1 FROM other) OR NEW.id IN (SELECT NEW.id) BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
  "BEFORE INSERT ON t BEGIN SELECT CASE WHEN (SELECT count(*) FROM other) > 0 THEN RAISE(FAIL, 'no') END; END",
  `BEFORE INSERT ON t WHEN (SELECT max(id) FROM other) > 0 BEGIN
    UPDATE other SET v = (SELECT count(*) FROM t) WHERE id IN (SELECT id FROM other);
    SELECT RAISE(IGNORE) WHERE (SELECT 1);
    INSERT INTO other SELECT id + 100, v FROM other WHERE id = (SELECT min(id) FROM other);
    DELETE FROM other WHERE id > (SELECT max(id) FROM other);
    SELECT (SELECT RAISE(ABORT, 'no')); END`,
  `BEFORE INSERT ON "t" FOR EACH ROW WHEN NEW.v <> 'BEGIN; END' AND EXISTS (SELECT 1) BEGIN
    SELECT 'a; b', ";" FROM (SELECT 1 AS ";") UNION ALL SELECT 1, RAISE(ABORT, 'no'); -- END;
    WITH x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x WHERE n < 3) SELECT RAISE(ABORT, 'no') FROM x WHERE n = (SELECT max(n) FROM x); END`,
  `AFTER INSERT ON t WHEN EXISTS (SELECT 1 FROM t WHERE id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'no'); INSERT OR REPLACE INTO t(id, v) VALUES (NEW.id + 1, 'made'); END`,
  `AFTER INSERT ON t WHEN NEW.begin IS NULL BEGIN
    UPDATE t SET v = 'made' WHERE id = (SELECT NEW.id); SELECT RAISE(ABORT, 'no') WHERE NEW.begin IS NULL -- open
    ; END`,
];

for (const [place, refusal] of REFUSALS.entries()) {
  test(`validation that writes no uncaptured table lets replicated rows pass (${place + 1})`, () => {
    const db = openDatabase(":memory:");
    db.exec(`CREATE TABLE t(id INTEGER PRIMARY KEY, v, begin); CREATE TABLE other(id INTEGER PRIMARY KEY, v);
      INSERT INTO other VALUES (1, 'as it was'); CREATE TRIGGER "a BEGIN b" ${refusal};`);
    const insert = "INSERT INTO main.t(id, v) VALUES (?, ?)";
    try {
      db.exec("BEGIN; INSERT INTO t(id, v) VALUES (9, 'by the application')");
    } catch (error) {
      assert.match(String(error), /no/);
    }
    assert.deepEqual(db.prepare("SELECT * FROM t").all(), [], "the validation refuses the application's row");
    // RAISE(IGNORE) keeps what the trigger did before it, RAISE(ROLLBACK) has ended the transaction
    if (!refusal.includes("ROLLBACK")) db.exec("ROLLBACK");
    const schema = readSchema(db, false);
    const policy = new TriggerPolicy(db, schema, schema.tables);
    assert.equal(policy.of(schema.tables.get("t")!).problem, undefined);
    for (let id = 1n; id <= 3n; id++) db.prepare(insert).run(id, "x");
    assert.deepEqual(db.prepare("SELECT id FROM t").all(), [[1n], [2n], [3n]]);
    assert.deepEqual(db.prepare("SELECT * FROM other").all(), [[1n, "as it was"]]);
    db.close();
  });
}

test("a trigger's text is taken apart outside of quotes, comments and parentheses", () => {
  assert.deepEqual(
    readTriggerSql(`CREATE TRIGGER [x BEGIN] AFTER UPDATE OF "BEGIN" ON t WHEN (CASE 1 WHEN 1 THEN ';' END) = ';'
      /* BEGIN */ BEGIN SELECT ';'; DELETE FROM t -- ;
      WHERE 1;; END`)?.steps,
    ["SELECT ';'", "DELETE FROM t -- ;\n      WHERE 1"],
  );
  assert.equal(readTriggerSql("CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END")?.head, " AFTER INSERT ON t ");
  assert.equal(
    readTriggerSql("CREATE TRIGGER x AFTER UPDATE OF begin, end ON t WHEN begin BEGIN-- x\nDELETE FROM t; END")?.head,
    " AFTER UPDATE OF begin, end ON t WHEN begin ",
  );
});

test("a trigger that can't be compiled stops its own table, by name, and no other", () => {
  const db = openDatabase(":memory:");
  db.exec(`CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE other(id INTEGER PRIMARY KEY, v);
    CREATE TABLE side(x); CREATE TABLE gone(x);
    CREATE TRIGGER validates AFTER INSERT ON t BEGIN
      INSERT INTO side VALUES (NEW.id); SELECT RAISE(ABORT, 'no') WHERE NEW.v > 1; END;
    CREATE TRIGGER broken AFTER INSERT ON t BEGIN INSERT INTO gone VALUES (NEW.id); END;
    CREATE TRIGGER beside AFTER UPDATE ON other BEGIN UPDATE t SET v = 1 WHERE id = NEW.id; END;
    DROP TABLE gone`);
  const schema = readSchema(db, false);
  const tables = new Map([...schema.tables].filter(([name]) => name !== "side"));
  const policy = new TriggerPolicy(db, schema, tables);
  assert.match(policy.of(tables.get("t")!).problem!, /no such table: main.gone/);
  assert.equal(policy.of(tables.get("other")!).problem, undefined);
  db.close();
});
