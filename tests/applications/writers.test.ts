/**
 * Each writer does the same on both nodes at once. "make": rows of all storage classes, a transaction of a hundred, one
 * that is rolled back, a changed key, an upsert, and a REPLACE that displaces a row by its UNIQUE name (its moves go with
 * it). "change": writes to what the other node made.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { type App, sqliteShell } from "../support/app.ts";
import { haveBun, haveKnex, runInstalled } from "../support/applications.ts";
import { startCluster, type TestNode } from "../support/cluster.ts";
import { haveProgram } from "../support/skip.ts";

const SCHEMA =
  `CREATE TABLE item(id TEXT PRIMARY KEY, name TEXT UNIQUE, amount INTEGER NOT NULL, weight REAL, picture BLOB, big);
  CREATE TABLE move(id INTEGER PRIMARY KEY, item TEXT REFERENCES item(id) ON DELETE CASCADE, amount INTEGER)`;

type Phase = "make" | "change";

interface Writing {
  readonly node: TestNode;
  readonly phase: Phase;
  readonly own: string;
  readonly other: string;
  readonly firstId: number;
}

/** Both nodes make, both change what the other made, and both have the same in the end. */
async function onTwoNodes(write: (writing: Writing) => Promise<void>): Promise<void> {
  await using cluster = await startCluster();
  const { a, b } = cluster;
  await cluster.schema(SCHEMA);
  for (const phase of ["make", "change"] as const) {
    await Promise.all([
      write({ node: a, phase, own: "a", other: "b", firstId: 1000 }),
      write({ node: b, phase, own: "b", other: "a", firstId: 2000 }),
    ]);
    await cluster.converged();
  }
  for (const node of cluster.nodes) {
    await node.running();
    await assertWritten(node.app);
  }
}

async function assertWritten(app: App): Promise<void> {
  const rows = await app.run("SELECT id, name, amount, length(picture), big FROM item ORDER BY id");
  assert.deepEqual(rows, [
    ["a-bare", null, 12, 0, 9007199254740993n],
    ["a-full", "a 🦫\0nul", 100, 100_000, -9223372036854775808n],
    ["a-moved!", "named by b", 3, null, null],
    ["b-bare", null, 12, 0, 9007199254740993n],
    ["b-full", "b 🦫\0nul", 100, 100_000, -9223372036854775808n],
    ["b-moved!", "named by a", 3, null, null],
  ]);
  assert.deepEqual(await app.run("SELECT item, count(*), max(amount) FROM move GROUP BY item ORDER BY item"), [
    ["a-full", 25, 49],
    ["b-full", 25, 49],
  ]);
}

function programArguments(program: string, { node, phase, own, other, firstId }: Writing): string[] {
  return [
    fileURLToPath(new URL(`./writers/${program}`, import.meta.url)),
    node.path,
    phase,
    own,
    other,
    String(firstId),
  ];
}

test("what Node's better-sqlite3 writes on two nodes arrives", async (context) => {
  const node = await haveKnex(context);
  if (node === undefined) return;
  await onTwoNodes(async (writing) => {
    await runInstalled(node, programArguments("better_sqlite3.cjs", writing));
  });
});

test("what a program on bun:sqlite writes on two nodes arrives", async (context) => {
  const bun = await haveBun(context);
  if (bun === undefined) return;
  await onTwoNodes(async (writing) => {
    await runInstalled(bun, programArguments("bun_sqlite.js", writing));
  });
});

test("what the sqlite3 shell writes on two nodes arrives, with a schema that it does not trust", async (context) => {
  if (!await haveProgram(context, ["python3", "--version"])) return;
  if (!await haveProgram(context, ["sqlite3", "--version"])) return;
  await onTwoNodes(async ({ node, phase, own, other, firstId }) => {
    await sqliteShell(node.path, phase === "make" ? shellMakes(own, firstId) : shellChanges(own, other));
  });
});

function shellMakes(own: string, firstId: number): string {
  return `PRAGMA foreign_keys = ON;
    INSERT INTO item VALUES ('${own}-full', '${own} 🦫' || char(0) || 'nul', 1, 0.1, x'00ff', -9223372036854775808),
      ('${own}-bare', NULL, 2, -0.0, x'', 9007199254740993), ('${own}-moved', '${own} moved', 3, 1e300, NULL, NULL),
      ('${own}-gone', '${own} gone', 4, NULL, NULL, NULL);
    BEGIN IMMEDIATE;
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
    INSERT INTO move SELECT ${firstId} + i, '${own}-' || iif(i % 2, 'full', 'gone'), i FROM n;
    COMMIT;
    BEGIN; DELETE FROM item; ROLLBACK;
    UPDATE item SET id = id || '!' WHERE id = '${own}-moved';
    INSERT INTO item(id, amount) VALUES ('${own}-bare', 10) ON CONFLICT (id) DO UPDATE SET amount = amount + excluded.amount;
    REPLACE INTO item(id, name, amount) VALUES ('${own}-replaced', '${own} gone', 5);`;
}

function shellChanges(own: string, other: string): string {
  return `PRAGMA foreign_keys = ON; BEGIN IMMEDIATE;
    UPDATE item SET amount = amount * 100, picture = CAST(replace(hex(zeroblob(50000)), '0', '${own}') AS BLOB) WHERE id = '${other}-full';
    DELETE FROM item WHERE id = '${other}-replaced';
    DELETE FROM move WHERE item = '${other}-full' AND amount > 50;
    COMMIT;
    UPDATE item SET name = 'named by ${own}' WHERE id = '${other}-moved!';`;
}

test("what Python's sqlite3 writes on two nodes arrives", async (context) => {
  if (!await haveProgram(context, ["python3", "--version"])) return;
  await onTwoNodes(async ({ node, phase, own, other, firstId }) => {
    const program = phase === "make" ? PYTHON_MAKES : PYTHON_CHANGES;
    const named = program.replaceAll("OWN", own).replaceAll("OTHER", other).replaceAll("FIRST_ID", String(firstId));
    await node.app.python(named);
  });
});

/** With Python's own handling of transactions, and its context manager, not autocommit. */
const PYTHON_CONNECTS = `import sqlite3
path = db.execute("SELECT file FROM pragma_database_list").fetchone()[0]
own = sqlite3.connect(path, timeout=60)
own.execute("PRAGMA foreign_keys = ON")
`;

const PYTHON_MAKES = `${PYTHON_CONNECTS}
with own:
    own.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?)", [
        ("OWN-full", "OWN 🦫\\0nul", 1, 0.1, b"\\x00\\xff", -2**63), ("OWN-bare", None, 2, -0.0, b"", 2**53 + 1),
        ("OWN-moved", "OWN moved", 3, 1e300, None, None), ("OWN-gone", "OWN gone", 4, None, None, None)])
with own:
    own.executemany("INSERT INTO move VALUES (?, ?, ?)",
        ((FIRST_ID + i, "OWN-full" if i % 2 else "OWN-gone", i) for i in range(100)))
own.execute("DELETE FROM item")
own.rollback()
with own:
    own.execute("UPDATE item SET id = id || '!' WHERE id = 'OWN-moved'")
    own.execute("INSERT INTO item(id, amount) VALUES ('OWN-bare', 10) ON CONFLICT (id) DO UPDATE SET amount = amount + excluded.amount")
    own.execute("REPLACE INTO item(id, name, amount) VALUES ('OWN-replaced', 'OWN gone', 5)")
own.close()`;

const PYTHON_CHANGES = `${PYTHON_CONNECTS}
with own:
    own.execute("UPDATE item SET amount = amount * 100, picture = ? WHERE id = 'OTHER-full'", (b"OWN" * 100_000,))
    own.execute("DELETE FROM item WHERE id = 'OTHER-replaced'")
    own.execute("DELETE FROM move WHERE item = 'OTHER-full' AND amount > 50")
own.execute("UPDATE item SET name = 'named by OWN' WHERE id = 'OTHER-moved!'")
own.commit()
own.close()`;
