import assert from "node:assert/strict";
import { type AppParam, Real } from "../support/app.ts";
import { clusterTests } from "../support/cluster.ts";

const LARGE_BLOB_BYTES = 5_000_000;
const SMALL_MAX_PAYLOAD = "max_payload: 65536";

/** A smaller message limit than the default lets rows of some hundred KB travel in parts. */
const test = clusterTests({ serverConfig: SMALL_MAX_PAYLOAD });
const utf8 = (text: string) => new TextEncoder().encode(text);

/** One row for each value that some layer between two databases is known to change. */
const VALUES: readonly [name: string, sql: string, param: AppParam][] = [
  ["null", "?", null],
  ["largest integer", "?", 2n ** 63n - 1n],
  ["smallest integer", "?", -(2n ** 63n)],
  ["integer above 2^53", "?", 2n ** 53n + 1n],
  ["integer zero", "?", 0],
  ["integer one", "?", 1],
  ["real one", "?", new Real(1)],
  ["negative zero", "?", new Real(-0)],
  ["positive zero", "?", new Real(0)],
  ["smallest real", "?", new Real(5e-324)],
  ["largest real", "?", new Real(Number.MAX_VALUE)],
  ["a tenth", "?", new Real(0.1)],
  ["infinity", "?", new Real(Infinity)],
  ["negative infinity", "?", new Real(-Infinity)],
  ["real above 2^53", "?", new Real(2 ** 60)],
  ["empty text", "?", ""],
  ["empty blob", "?", new Uint8Array()],
  ["text of a number", "?", "1"],
  ["text of nothing but NUL", "CAST(? AS TEXT)", new Uint8Array([0])],
  ["text with NUL inside", "CAST(? AS TEXT)", utf8("before\0after")],
  ["text that is not UTF-8", "CAST(? AS TEXT)", new Uint8Array([0x41, 0xff, 0xfe, 0x00, 0xc3])],
  ["text cut inside a character", "CAST(? AS TEXT)", utf8("ä").subarray(0, 1)],
  ["overlong text", "CAST(? AS TEXT)", new Uint8Array([0xc0, 0x80])],
  ["lone surrogate", "CAST(? AS TEXT)", new Uint8Array([0xed, 0xa0, 0x80])],
  ["emoji", "?", "🦫 and äöü and \u{10ffff}"],
  ["byte order mark", "?", "\ufeffx"],
  ["combining and composed", "?", "e\u0301 \u00e9"],
  ["line ends", "?", "\r\n\r\n"],
  ["blob of all bytes", "?", Uint8Array.from({ length: 256 }, (_, i) => i)],
];

test("every value arrives with its storage class and its bytes", async ({ a, b, schema, converged }) => {
  await schema(`CREATE TABLE "values"(name TEXT PRIMARY KEY, value)`);
  for (const [name, sql, param] of VALUES) {
    await a.app.run(`INSERT INTO "values" VALUES (?, ${sql})`, name, param);
  }
  await converged();
  const kinds = `SELECT name, typeof(value), hex(CAST(value AS BLOB)) FROM "values" ORDER BY name`;
  assert.deepEqual(await b.app.run(kinds), await a.app.run(kinds));
  assert.equal(await b.app.value(`SELECT value FROM "values" WHERE name = 'negative zero'`), -0);
  assert.equal((await b.app.run(`SELECT 1 FROM "values"`)).length, VALUES.length);
});

test("every value arrives when a row is changed from any other", async ({ a, schema, converged }) => {
  await schema("CREATE TABLE changed(id INTEGER PRIMARY KEY, value)");
  await a.app.script(
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99) INSERT INTO changed SELECT i, i FROM n",
  );
  for (let round = 0; round < 3; round++) {
    for (const [place, [, sql, param]] of VALUES.entries()) {
      await a.app.run(`UPDATE changed SET value = ${sql} WHERE id = ?`, param, (place * 7 + round) % VALUES.length);
    }
    await converged();
  }
});

test("columns with an affinity keep what SQLite stored in them", async ({ a, schema, converged }) => {
  await schema("CREATE TABLE affine(id INTEGER PRIMARY KEY, i INTEGER, r REAL, t TEXT, n NUMERIC, b BLOB)");
  for (const [, sql, param] of VALUES) {
    const five = Array.from({ length: 5 }, () => sql).join(", ");
    await a.app.run(`INSERT INTO affine(i, r, t, n, b) VALUES (${five})`, param, param, param, param, param);
  }
  await converged();
});

test("a blob of 5 MB and a text of 5 MB arrive, through messages of 64 KB", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE large(id INTEGER PRIMARY KEY, value)");
  await a.app.run("INSERT INTO large VALUES (1, randomblob(?))", LARGE_BLOB_BYTES);
  await a.app.run("INSERT INTO large VALUES (2, hex(randomblob(?)))", LARGE_BLOB_BYTES / 2);
  await a.app.run("INSERT INTO large VALUES (3, zeroblob(?))", LARGE_BLOB_BYTES);
  await converged();
  assert.deepEqual(await b.app.run("SELECT id, length(value) FROM large ORDER BY id"), [
    [1, LARGE_BLOB_BYTES],
    [2, LARGE_BLOB_BYTES],
    [3, LARGE_BLOB_BYTES],
  ]);
});

test("large and small rows of one transaction arrive together, and the next ones after them", async (cluster) => {
  const { a, b } = cluster;
  await cluster.schema("CREATE TABLE mixed(id INTEGER PRIMARY KEY, value)");
  await a.app.script(`BEGIN;
    INSERT INTO mixed VALUES (1, 'small'), (2, randomblob(300000)), (3, 'small'), (4, randomblob(65536)), (5, randomblob(65000));
    COMMIT;
    UPDATE mixed SET value = 'changed' WHERE id = 2;`);
  await cluster.converged();
  assert.equal(await b.app.value("SELECT value FROM mixed WHERE id = 2"), "changed");
});

for (const encoding of ["UTF-16le", "UTF-16be"]) {
  clusterTests({
    prepare: `PRAGMA encoding = '${encoding}'; PRAGMA journal_mode = WAL; CREATE TABLE t(k TEXT PRIMARY KEY, v)`,
  })(
    `texts of a ${encoding} database arrive to the bit`,
    async ({ a, b, converged }) => {
      await a.app.script(
        `INSERT INTO t VALUES ('ascii', 'abc'), ('äö 🦫', '🦫 äöü'), ('', ''), ('nul', 'a' || char(0) || 'b');
        INSERT INTO t VALUES ('surrogate', CAST(x'3dd8' AS TEXT)), ('blob', x'00d8'), ('pair', char(0x10ffff));
        UPDATE t SET k = k || '!' WHERE k = 'äö 🦫'`,
      );
      await b.app.script("INSERT INTO t VALUES ('of b', 'ß')");
      await converged();
      const bytes = "SELECT hex(CAST(k AS BLOB)), typeof(v), hex(CAST(v AS BLOB)) FROM t ORDER BY k";
      assert.deepEqual(await b.app.run(bytes), await a.app.run(bytes));
    },
  );
}

const MIXED = ["UTF-8", "UTF-16le", "UTF-16be"];
clusterTests({
  nodes: MIXED.length,
  prepare: (place) =>
    `PRAGMA encoding = '${MIXED[place]}'; PRAGMA journal_mode = WAL; CREATE TABLE t(k TEXT PRIMARY KEY, v)`,
})("databases of different encodings hold the same texts", async ({ nodes, converged }) => {
  for (const { name, app } of nodes) await app.run("INSERT INTO t VALUES (?, ?), (?, 'b')", `ä🦫 ${name}`, name, name);
  await converged();
});
