import assert from "node:assert/strict";
import { test } from "node:test";
import { Observation } from "../src/observation.ts";
import type { Runtime } from "../src/runtime.ts";
import { openDatabase } from "../src/sqlite/connection.ts";
import { tempFolder } from "./support/tmp.ts";

const COMMITS = 1_000;
const CHANGES = 50;
/** Commits after which it is clear whether somebody rests: fewer, and more than twice as many */
const SOON = 20;
/** Commits that nobody who writes by hand, or for a request, makes more of at once */
const FEW = 5;
const LONG_AFTER_MS = 60_000;
const SLEPT_AT_LEAST_MS = 1;

for (const who of ["an application", "the node itself"]) {
  test(`nothing is watched while ${who} writes without rest, and again when it rests`, async () => {
    await using folder = await tempFolder();
    const path = folder.file("app.db");
    const app = openDatabase(path);
    app.exec("CREATE TABLE t(v)");
    const observation = new Observation(app);
    const end = new AbortController();
    let now = 0;
    const watched: boolean[] = [];
    let watching = false;
    const sleep = (ms: number) => Promise.resolve().then(() => void (now += Math.max(SLEPT_AT_LEAST_MS, ms)));
    const watch = () => {
      watching = true;
      const wait = (_: number, signal: AbortSignal) =>
        sleep(SLEPT_AT_LEAST_MS).then(() => (signal.throwIfAborted(), true));
      return { wait, close: () => watching = false };
    };
    const ring = () => {
      watched.push(watching);
      if (watched.length === 2 * COMMITS) return end.abort();
      if (watched.length > COMMITS) return;
      if (who === "the node itself") observation.wrote(now, CHANGES);
      else observation.scanned(now, CHANGES, 0);
    };
    await observation.follow({ clock: { now: () => now, sleep }, watch } as unknown as Runtime, ring, end.signal);
    assert.ok(watched.slice(0, SOON).every((one) => one));
    assert.ok(watched.slice(2 * SOON, COMMITS).every((one) => !one));
    assert.ok(watched.slice(COMMITS + SOON).every((one) => one));
    app.close();
  });
}

test("an idle node looks once a second, also after an application that wrote without rest", async () => {
  await using folder = await tempFolder();
  const path = folder.file("app.db");
  const app = openDatabase(path);
  app.exec("PRAGMA journal_mode = WAL; CREATE TABLE t(v)");
  const db = openDatabase(path);
  const observation = new Observation(db);
  const end = new AbortController();
  let now = 0;
  let watched = 0;
  const sleep = (ms: number) => Promise.resolve().then(() => void (now += Math.max(SLEPT_AT_LEAST_MS, ms)));
  const clock = { now: () => now, sleep };
  const watch = () => {
    watched++;
    return { wait: () => sleep(SLEPT_AT_LEAST_MS).then(() => true), close() {} };
  };
  let commits = 0;
  const ring = () => {
    if (commits === COMMITS) return end.abort();
    if (now < observation.scanAfter) return;
    app.exec("INSERT INTO t VALUES (1)");
    if (observation.committed(now)) commits++;
    observation.scanned(now, CHANGES, 0);
  };
  observation.committed(now);
  const runtime = { clock, watch } as unknown as Runtime;
  await observation.follow(runtime, ring, end.signal);
  assert.equal(watched, 1);
  assert.ok(observation.pollMs(now) < observation.pollMs(now + LONG_AFTER_MS));
  db.close();
  app.close();
});

test("a few commits at once are each looked at at once, a writer without rest only now and then", async () => {
  await using folder = await tempFolder();
  const db = openDatabase(folder.file("app.db"));
  const observation = new Observation(db);
  let now = LONG_AFTER_MS;
  for (let commit = 0; commit < FEW; commit++) {
    observation.scanned(now, 1, 0);
    assert.equal(observation.scanAfter, now);
  }
  let waited = 0;
  for (let commit = 0; commit < COMMITS; commit++) {
    observation.scanned(now, 1, 0);
    if (observation.scanAfter > now) waited++;
    now = Math.max(now, observation.scanAfter);
  }
  assert.ok(waited > COMMITS / 2, `${waited} of ${COMMITS}`);
  now += LONG_AFTER_MS;
  observation.scanned(now, 1, 0);
  assert.equal(observation.scanAfter, now);
  db.close();
});
