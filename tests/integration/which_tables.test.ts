import assert from "node:assert/strict";
import { ownClusterTests, until } from "../support/cluster.ts";

const LEDGERS = [
  "django_migrations",
  "schema_migrations",
  "ar_internal_metadata",
  "migrations",
  "_prisma_migrations",
  "alembic_version",
  "__EFMigrationsHistory",
  "flyway_schema_history",
  "goose_db_version",
  "knex_migrations",
  "knex_migrations_lock",
  "SequelizeMeta",
  "__drizzle_migrations",
  "__diesel_schema_migrations",
  "_sqlx_migrations",
  "_migrations",
];

const create = (tables: readonly string[]) =>
  tables.map((table) => `CREATE TABLE "${table}"(id INTEGER PRIMARY KEY, v);`).join("\n");
const insert = (tables: readonly string[]) =>
  tables.map((table) => `INSERT INTO "${table}"(v) VALUES ('of a');`).join("\n");
const prepare = (tables: readonly string[]) => `PRAGMA journal_mode = WAL; ${create(tables)}`;

ownClusterTests({ prepare: prepare([...LEDGERS, "users"]) })(
  "migration ledgers stay each node's own, each named once in the log",
  async ({ a, b, converged }) => {
    await a.app.script(insert([...LEDGERS, "users"]));
    await converged({ except: LEDGERS });
    assert.equal(await b.app.value("SELECT count(*) FROM users"), 1);
    for (const ledger of LEDGERS) {
      assert.equal(await b.app.value(`SELECT count(*) FROM "${ledger}"`), 0, ledger);
      const lines = a.log.split("\n").filter((line) => new RegExp(`(^|[^\\w])${ledger}($|[^\\w])`).test(line));
      assert.equal(lines.length, 1, `${ledger} in:\n${a.log}`);
    }
  },
);

ownClusterTests({
  args: ["--include", "users", "--include", "Order*"],
  prepare: prepare(["users", "orders", "order_lines", "cache"]),
})(
  "with --include only those tables are replicated",
  async ({ a, b, converged }) => {
    await a.app.script(insert(["users", "orders", "order_lines", "cache"]));
    await converged({ except: ["cache"] });
    assert.equal(await b.app.value("SELECT count(*) FROM orders"), 1);
    assert.equal(await b.app.value("SELECT count(*) FROM cache"), 0);
  },
);

ownClusterTests({
  args: ["--exclude", "cache_?", "--exclude", "*_log"],
  prepare: prepare(["users", "cache_1", "cache_10", "my_log"]),
})(
  "with --exclude those tables are not replicated, and made later neither",
  async ({ a, b, nodes, schema, converged }) => {
    await schema(create(["late_log", "late"]), { uncaptured: ["late_log"] });
    await a.app.script(insert(["users", "cache_1", "cache_10", "my_log", "late_log", "late"]));
    await converged({ except: ["cache_1", "my_log", "late_log"] });
    assert.equal(await b.app.value("SELECT count(*) FROM cache_10"), 1);
    assert.equal(await b.app.value("SELECT count(*) FROM late"), 1);
    for (const table of ["cache_1", "my_log", "late_log"]) {
      assert.equal(await b.app.value(`SELECT count(*) FROM ${table}`), 0);
    }
    for (const { app } of nodes) {
      assert.equal(
        await app.value("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%my_log%' AND type = 'trigger'"),
        0,
      );
    }
  },
);

ownClusterTests({
  args: ["--include", "django_migrations", "--include", "*"],
  prepare: prepare(["django_migrations", "users"]),
})(
  "a ledger is replicated when it is named by --include",
  async ({ a, b, converged }) => {
    await a.app.script(insert(["django_migrations", "users"]));
    await converged();
    assert.equal(await b.app.value("SELECT count(*) FROM django_migrations"), 1);
  },
);

ownClusterTests({
  args: ["--rowid-tables"],
  prepare: "PRAGMA journal_mode = WAL; CREATE TABLE keyless(v); CREATE TABLE odd(rowid TEXT, oid, v UNIQUE)",
})(
  "tables without a key are replicated by rowid with --rowid-tables",
  async ({ a, b, converged }) => {
    await a.app.script(
      "INSERT INTO keyless VALUES ('a'), ('a'), (NULL); INSERT INTO odd VALUES ('x', 1, 2), ('x', 1, 3)",
    );
    await converged();
    await b.app.script(
      "DELETE FROM keyless WHERE rowid = 2; UPDATE keyless SET v = 'b' WHERE v IS NULL; UPDATE odd SET v = v + 10; UPDATE keyless SET rowid = 77 WHERE rowid = 1",
    );
    await converged();
    assert.deepEqual(
      await a.app.run("SELECT rowid, v FROM keyless ORDER BY rowid"),
      await b.app.run("SELECT rowid, v FROM keyless ORDER BY rowid"),
    );
    assert.deepEqual(await a.app.run("SELECT v FROM keyless ORDER BY v"), [["a"], ["b"]]);
  },
);

ownClusterTests({ prepare: "PRAGMA journal_mode = WAL; CREATE TABLE old(id INTEGER PRIMARY KEY, v)" })(
  "a table excluded at a later start is not replicated any more, and again after the one that includes it",
  async ({ a, b, nodes, converged, captured }) => {
    await a.app.script("INSERT INTO old VALUES (1, 'a')");
    await converged();
    for (const node of nodes) {
      await node.stop();
      await node.start("--exclude", "old");
    }
    for (const { app } of nodes) {
      await until("triggers are gone", async () => (await app.facts()).captured.length === 0, { nodes });
    }
    await a.app.script("INSERT INTO old VALUES (2, 'while excluded')");
    await converged({ except: ["old"] });
    assert.equal(await b.app.value("SELECT count(*) FROM old"), 1);
    await b.app.script("INSERT INTO old VALUES (2, 'while excluded')");
    for (const node of nodes) {
      await node.stop();
      await node.start();
    }
    await captured(["old"]);
    await b.app.script("INSERT INTO old VALUES (3, 'b')");
    await converged();
    for (const { log } of nodes) {
      assert.match(log, /captured again table=old .*other nodes wrote meanwhile is not here/);
    }
  },
);
