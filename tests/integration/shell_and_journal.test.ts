import assert from "node:assert/strict";
import { test as plainTest } from "node:test";
import { sqliteShell } from "../support/app.ts";
import { clusterTests, startCluster, until } from "../support/cluster.ts";
import { haveProgram } from "../support/skip.ts";

const SHELL = ["sqlite3", "--version"];
const SHORT_LIVED_WRITERS = 40;

const rollback = clusterTests({ prepare: "PRAGMA journal_mode = DELETE; CREATE TABLE t(id INTEGER PRIMARY KEY, v)" });

rollback(
  "databases with a rollback journal are replicated, and keep their journal mode",
  async ({ a, b, schema, converged }) => {
    await schema("CREATE TABLE other(id INTEGER PRIMARY KEY, v UNIQUE)");
    await a.app.script("INSERT INTO t VALUES (1, 'x'); INSERT INTO other VALUES (1, 'x')");
    await b.app.script("INSERT INTO t VALUES (2, 'y'); BEGIN; INSERT INTO other VALUES (2, 'y'), (3, 'z'); COMMIT");
    await converged();
    for (const { app } of [a, b]) assert.equal(await app.value("PRAGMA journal_mode"), "delete");
  },
);

rollback(
  "with a rollback journal, writes of both nodes at once never fail and end equal",
  async ({ a, b, converged }) => {
    const write = (name: string) =>
      `for i in range(300):
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (i % 40, "${name}" + str(i)))
    db.execute("COMMIT")
    time.sleep(0.001)`;
    await Promise.all([a.app.python(write("a")), b.app.python(write("b"))]);
    await converged();
  },
);

rollback("a database that changes to WAL and back while Marmot runs stays replicated", async ({ a, b, converged }) => {
  for (const mode of ["WAL", "TRUNCATE", "PERSIST", "WAL"]) {
    // Refused while Marmot reads; the application tries again, as for any other connection.
    await a.app.python(`for i in range(400):
    try:
        if db.execute("PRAGMA journal_mode = ${mode}").fetchone()[0] == "${mode.toLowerCase()}": break
    except Exception: pass
    time.sleep(0.01)`);
    await a.app.run("INSERT INTO t(v) VALUES (?)", mode);
    await b.app.run("INSERT INTO t(id, v) VALUES ((SELECT max(id) + 1000 FROM t), ?)", mode);
    await converged();
  }
});

plainTest("with --wal the database is switched to WAL, without it the log recommends it once", async (context) => {
  if (!await haveProgram(context, ["python3", "--version"])) return;
  await using cluster = await startCluster({ nodes: 1, prepare: "CREATE TABLE t(id INTEGER PRIMARY KEY)" });
  const { a } = cluster;
  await a.app.script("INSERT INTO t VALUES (1)");
  assert.equal(a.log.match(/--wal/g)?.length, 1, a.log);
  assert.equal(await a.app.value("PRAGMA journal_mode"), "delete");
  await a.stop();
  await a.start("--wal");
  // A connection tells the mode it saw when it last read.
  const mode = async () => (await a.app.run("SELECT * FROM t"), await a.app.value("PRAGMA journal_mode"));
  await until("it is switched", async () => await mode() === "wal", { nodes: [a] });
});

plainTest("the sqlite3 shell writes with trusted_schema off, and reads what others wrote", async (context) => {
  if (!await haveProgram(context, ["python3", "--version"]) || !await haveProgram(context, SHELL)) return;
  await using cluster = await startCluster();
  const { a, b, schema, converged } = cluster;
  await schema("CREATE TABLE shell(id INTEGER PRIMARY KEY, v TEXT UNIQUE, made DEFAULT CURRENT_TIMESTAMP)");
  await sqliteShell(
    a.path,
    "INSERT INTO shell(id, v) VALUES (1, 'x'), (2, 'y'); UPDATE shell SET id = 3 WHERE id = 2; PRAGMA trusted_schema;",
  );
  await converged();
  await sqliteShell(b.path, "REPLACE INTO shell(id, v) VALUES (4, 'y'); DELETE FROM shell WHERE v = 'x';");
  await converged();
  assert.equal(await sqliteShell(a.path, "SELECT id, v FROM shell;"), "4|y\n");
});

plainTest("writers that open the database for one statement only lose nothing", async (context) => {
  if (!await haveProgram(context, ["python3", "--version"]) || !await haveProgram(context, SHELL)) return;
  await using cluster = await startCluster({
    prepare: "PRAGMA journal_mode = WAL; CREATE TABLE brief(id TEXT PRIMARY KEY, v)",
  });
  const { nodes, converged } = cluster;
  // Nobody else has the files open: each shell that ends may think it is the last one.
  for (const node of nodes) await node.app[Symbol.asyncDispose]();
  await Promise.all(nodes.map(async ({ path, name }) => {
    for (let i = 0; i < SHORT_LIVED_WRITERS; i++) {
      await sqliteShell(path, `INSERT INTO brief VALUES ('${name}${i}', ${i});`);
    }
  }));
  for (const node of nodes) await node.restartApp();
  await converged();
  assert.equal(await cluster.a.app.value("SELECT count(*) FROM brief"), nodes.length * SHORT_LIVED_WRITERS);
  for (const { log } of nodes) assert.doesNotMatch(log, /older copy|replaced/);
});
