import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { tempFolder } from "./support/tmp.ts";
import { Journal, type Lapse } from "./torture/journal.ts";
import { judge } from "./torture/laws.ts";

type Writes = Record<string, string | null>;

const committed = (tx: string, writes: Writes) => [{ begin: tx }, { tx, do: writes }, { ok: tx }];
const unanswered = (tx: string, writes: Writes) => [{ begin: tx }, { tx, do: writes }];

function text(...lines: readonly unknown[]): string {
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}

async function journalOf(lives: readonly string[], lapses: readonly Lapse[] = []): Promise<Journal> {
  await using folder = await tempFolder();
  const files = lives.map((_, i) => folder.file(`${i + 1}`));
  for (const [i, life] of lives.entries()) await writeFile(files[i]!, life);
  return await Journal.read(files, lapses);
}

async function judged(state: Record<string, string>, journals: Record<string, string[]>, lapses: Lapse[] = []) {
  const read = new Map<string, Journal>();
  for (const [node, lives] of Object.entries(journals)) read.set(node, await journalOf(lives, lapses));
  const { lost, stale, problems } = judge(state, { "counter/a": "0" }, read);
  return { lost, stale, problems: problems.length };
}

test("a committed row that is gone is called lost", async () => {
  const journals = { a: [text(...committed("a-1-1", { "list/x": "1" }))] };
  assert.deepEqual(await judged({ "counter/a": "0" }, journals), { lost: 1, stale: 0, problems: 1 });
  assert.deepEqual(await judged({ "counter/a": "0", "list/x": "1" }, journals), { lost: 0, stale: 0, problems: 0 });
});

test("an older value, a deleted row that is back, and what nobody wrote are called wrong", async () => {
  const a = text(
    ...committed("a-1-1", { "counter/a": "1", "task/x": "new" }),
    ...committed("a-1-2", { "counter/a": "2", "task/x": null }),
  );
  assert.equal((await judged({ "counter/a": "2" }, { a: [a] })).problems, 0);
  assert.equal((await judged({ "counter/a": "1" }, { a: [a] })).stale, 1);
  assert.equal((await judged({ "counter/a": "0" }, { a: [a] })).stale, 1);
  assert.equal((await judged({ "counter/a": "2", "task/x": "new" }, { a: [a] })).stale, 1);
  assert.equal((await judged({ "counter/a": "2", "list/y": "nobody's" }, { a: [a] })).stale, 1);
});

test("of writes by several nodes, the last of any of them may stay, and no earlier one", async () => {
  const journals = {
    a: [text(...committed("a-1-1", { "register/1": "a1" }), ...committed("a-1-2", { "register/1": "a2" }))],
    b: [text(...committed("b-1-1", { "register/1": "b1" }))],
  };
  for (const [value, problems] of [["a2", 0], ["b1", 0], ["a1", 1]] as const) {
    assert.equal((await judged({ "counter/a": "0", "register/1": value }, journals)).problems, problems, value);
  }
});

test("a COMMIT whose end is not known may have happened or not; what was rolled back did not", async () => {
  const life = text(...committed("a-1-1", { "register/1": "1" }), ...unanswered("a-1-2", { "register/1": "2" }));
  for (const [value, problems] of [["1", 0], ["2", 0], ["3", 1]] as const) {
    const state = { "counter/a": "0", "register/1": value };
    assert.equal((await judged(state, { a: [life] })).problems, problems, value);
  }
  const rolledBack = text({ begin: "a-1-1" }, { tx: "a-1-1", do: { "list/x": "1" } }, { no: "a-1-1", sure: true });
  assert.equal((await judged({ "counter/a": "0", "list/x": "1" }, { a: [rolledBack] })).stale, 1);
});

test("what was committed after the copy that was put back may be gone, what was before it may not", async () => {
  const [before, after] = [
    text(...committed("a-1-1", { "list/1": "1" })),
    text(...committed("a-1-2", { "list/2": "2" })),
  ];
  const lives = [before + after, text(...committed("a-2-1", { "list/3": "3" }))];
  const lapses = [{ copied: { life: 1, bytes: before.length }, life: 2 }];
  const { counts } = await journalOf(lives, lapses);
  assert.deepEqual([counts.commits, counts.lapsed], [3, 1]);
  const state = { "counter/a": "0", "list/1": "1", "list/3": "3" };
  assert.equal((await judged(state, { a: lives }, lapses)).lost, 0);
  assert.equal((await judged({ ...state, "list/2": "2" }, { a: lives }, lapses)).problems, 0);
  assert.equal((await judged({ "counter/a": "0", "list/3": "3" }, { a: lives }, lapses)).lost, 1);
  assert.equal((await judged({ "counter/a": "0", "list/1": "1" }, { a: lives }, lapses)).lost, 1);
});

test("an application killed before its COMMIT, in it, and while it wrote its journal is told apart", async () => {
  const { counts } = await journalOf([
    text({ begin: "a-1-1" }),
    text(...unanswered("a-2-1", { "list/x": "1" })),
    `${text({ begin: "a-3-1" })}{"tx": "a-3-1", "do": {"li`,
  ]);
  assert.deepEqual([counts.commits, counts.interrupted, counts.unanswered], [0, 2, 1]);
});
