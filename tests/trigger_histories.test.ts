/**
 * Random triggers, and an application that writes on one node after the other. What a transaction left at its origin,
 * triggers included, is what every node must have: nothing twice, nothing echoed (I5).
 */
import assert from "node:assert/strict";
import { env } from "node:process";
import { test } from "node:test";
import { type CoreMember, corePair } from "./support/core_pair.ts";
import { Random } from "./support/random.ts";

const HISTORIES = 60;
const WRITES = 12;
const TABLES = ["a", "b", "c"];

/** `c` has a UNIQUE column; audit and note have no primary key, so they are not replicated. */
const SCHEMA = `
  CREATE TABLE a(id INTEGER PRIMARY KEY, n, s);
  CREATE TABLE b(id INTEGER PRIMARY KEY, n, s);
  CREATE TABLE c(id INTEGER PRIMARY KEY, n UNIQUE, s);
  CREATE TABLE audit(what, id);
  CREATE TABLE note(x UNIQUE, n);
  CREATE VIEW all_of_b AS SELECT id, n FROM b;
  CREATE TRIGGER into_view INSTEAD OF INSERT ON all_of_b BEGIN
    INSERT OR REPLACE INTO b VALUES (NEW.id, NEW.n, 'view'); UPDATE a SET s = 'view' WHERE id = NEW.id; END`;

/** @param refusals may it refuse a change? Then no statement says OR, which compiles triggers inside themselves */
function trigger(random: Random, name: number, refusals: boolean): string {
  const table = random.pick(TABLES);
  const event = random.pick(["INSERT", "UPDATE", "DELETE", "UPDATE OF n"]);
  const row = event === "DELETE" ? "OLD" : "NEW";
  const other = random.pick(TABLES);
  const third = random.pick(TABLES);
  const when = random.pick([
    ...["", "", "", ` WHEN ${row}.n > 2`, ` WHEN (SELECT count(*) FROM ${other}) > 1`],
    ` WHEN EXISTS (SELECT 1 FROM ${other} WHERE id = ${row}.id)`,
  ]);
  const steps = Array.from({ length: 1 + random.below(3) }, () =>
    random.pick([
      `UPDATE ${other} SET n = n + 10 WHERE id <> ${row}.id AND n < 90`,
      `UPDATE ${table} SET s = coalesce(s, '') || '+' WHERE id = ${row}.id AND length(coalesce(s, '')) < 3`,
      `INSERT OR REPLACE INTO ${other} VALUES (${row}.id + 1, ${row}.n + 5, 'made')`,
      `INSERT OR IGNORE INTO ${third} VALUES (${row}.id + 2, ${row}.n + 7, 'made')`,
      `DELETE FROM ${other} WHERE id = ${row}.id + 3`,
      refusals
        ? `SELECT RAISE(ABORT, 'no') WHERE ${row}.n = 77`
        : `UPDATE OR REPLACE ${other} SET n = 5 WHERE id = ${row}.id`,
      `INSERT INTO audit VALUES ('${table} ${event}', ${row}.id)`,
      `INSERT OR REPLACE INTO note VALUES (${row}.id, (SELECT max(n) FROM ${other}))`,
      `INSERT INTO all_of_b SELECT ${row}.id + 1, ${row}.n WHERE ${row}.n IS NOT NULL`,
      `SELECT CASE WHEN (SELECT count(*) FROM ${third}) > 6 THEN RAISE(IGNORE) END`,
      `UPDATE ${other} SET s = (SELECT count(*) FROM ${third}) WHERE id = ${row}.id`,
      `DELETE FROM audit WHERE id = ${row}.id - 4`,
    ]));
  const time = random.pick(["BEFORE", "AFTER", "AFTER"]);
  return `CREATE TRIGGER x${name} ${time} ${event} ON ${table}${when} BEGIN ${steps.join("; ")}; END`;
}

function statement(random: Random): string {
  const table = random.pick(TABLES);
  const id = random.below(6);
  const n = random.below(8) === 0 ? 77 : random.below(8);
  return random.pick([
    `INSERT OR REPLACE INTO ${table} VALUES (${id}, ${n}, NULL)`,
    `INSERT INTO ${table} VALUES (${id}, ${n}, 'new') ON CONFLICT DO NOTHING`,
    `UPDATE OR REPLACE ${table} SET n = ${n} WHERE id = ${id}`,
    `UPDATE OR REPLACE ${table} SET id = ${random.below(6)} WHERE id = ${id}`,
    `UPDATE ${table} SET s = 'x' WHERE n > 1`,
    `DELETE FROM ${table} WHERE id = ${id}`,
    `INSERT INTO all_of_b VALUES (${id}, ${n})`,
  ]);
}

function stateOf(member: CoreMember): unknown[] {
  return TABLES.map((table) => member.rows(`SELECT * FROM ${table} ORDER BY id`));
}

/** @returns whether it was committed: a trigger, or a constraint, may refuse it */
function write(member: CoreMember, statements: readonly string[]): boolean {
  try {
    member.run(`BEGIN; ${statements.join("; ")}; COMMIT`);
    return true;
  } catch (error) {
    try {
      member.run("ROLLBACK");
    } catch {
      // a RAISE ended the transaction by itself
    }
    assert.match(String(error), /no|UNIQUE|recursion/);
    return false;
  }
}

async function history(seed: number): Promise<void> {
  const random = new Random(seed);
  const refusals = random.below(2) === 0;
  const before = Array.from({ length: random.below(3) }, (_, i) => trigger(random, i, refusals));
  const after = Array.from({ length: 1 + random.below(3) }, (_, i) => trigger(random, 10 + i, refusals));
  const hex = (digits: number) => random.hex(digits);
  await using pair = await corePair([SCHEMA, ...before].join("; "), { hex });
  const members = [pair.a, pair.b];
  if (random.below(2) === 0) await pair.converged();
  for (const member of members) for (const sql of after) member.run(sql);
  await pair.converged();
  for (let i = 0; i < WRITES; i++) {
    const origin = random.pick(members);
    const statements = Array.from({ length: 1 + random.below(3) }, () => statement(random));
    if (!write(origin, statements)) continue;
    const wanted = stateOf(origin);
    await pair.converged();
    const what = [...before, ...after, ...statements].join(";\n");
    for (const member of members) {
      assert.deepEqual(stateOf(member), wanted, `${member === origin ? "origin" : "replica"} after\n${what}`);
      for (const table of TABLES) assert.deepEqual(member.rows(`SELECT * FROM __marmot__${table}_change_log`), []);
      assert.deepEqual(member.node.notices, [], what);
    }
  }
}

test("whatever triggers there are, their effects arrive exactly once", async () => {
  const first = Number(env.MARMOT_SEED ?? 1);
  const last = env.MARMOT_SEED === undefined ? Number(env.MARMOT_HISTORIES ?? HISTORIES) : first;
  for (let seed = first; seed <= last; seed++) {
    try {
      await history(seed);
    } catch (error) {
      throw new Error(`history of seed ${seed} (MARMOT_SEED=${seed}): ${error}`, { cause: error });
    }
  }
});
