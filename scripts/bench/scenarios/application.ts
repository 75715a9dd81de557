/** What a node's own application feels of Marmot: how long its commits take, and how often it is refused. */
import { setTimeout as sleep } from "node:timers/promises";
import { Application, type Spread } from "../application.ts";
import { Database, type Node, startCluster } from "../cluster.ts";
import { startMeter } from "../meter.ts";
import { Measurement } from "../results.ts";
import { measureInTurn, NS_PER_MS, NS_PER_SECOND, type Run, type Scenario, STATE, warmUp, work } from "../run.ts";
import { tempFolder } from "../../../tests/support/tmp.ts";
import type { System } from "../systems.ts";

const SECONDS = 10;
const QUICK_SECONDS = 4;
/** between two commits of the application that is watched, on average */
const PAUSE_S = 0.002;
const PER_TRANSACTION = 100;
/** more than it gets done in its time */
const WATCHED_ROWS = 100_000;
/** ids of the two who write at full speed, and of the two who are watched */
const FULL_SPEED_FIRST = [10_000_000, 20_000_000] as const;
const WATCHED_FIRST = 50_000_000;
const SAME_TIMEOUT_S = 300;
const SAME_PAUSE_MS = 100;
/** what one writer at full speed gets; each piece is one request, until the time is over */
const PIECE_ROWS = 20_000;

/** who writes at full speed */
type Load = "the other node" | "both nodes" | "nobody";

export const APPLICATION: Scenario = {
  name: "application",
  about: "Commits of an application (about 400 a second, one row each) while nodes write at full speed.",
  measure: async (run) => {
    const results: Measurement[] = [];
    for (const load of ["nobody", "the other node", "both nodes"] as const) {
      results.push(
        ...await measureInTurn(
          run,
          (system) => new Measurement("application", system.name, `at full speed: ${load}`, 0),
          (result, system) => measureRound(result, system, load, secondsOf(run)),
        ),
      );
    }
    return results;
  },
};

function secondsOf(run: Run): number {
  return run.quick ? QUICK_SECONDS : SECONDS;
}

function milliseconds({ p50, p99, max }: Spread): { p50: number; p99: number; max: number } {
  return { p50: p50 / NS_PER_MS, p99: p99 / NS_PER_MS, max: max / NS_PER_MS };
}

/** Writes piece after piece until told to stop; the answer ends it. */
function fullSpeed(app: Application, first: number): () => Promise<number> {
  let stopped = false;
  const writing = (async () => {
    let rows = 0;
    while (!stopped) {
      await app.write(work(PIECE_ROWS, { first: first + rows }), PER_TRANSACTION);
      rows += PIECE_ROWS;
    }
    return rows;
  })();
  return () => {
    stopped = true;
    return writing;
  };
}

/** The same on a database of its own; "the other node" is then nobody. */
async function measureBare(load: Load, seconds: number): Promise<{ p50: number; p99: number; max: number }> {
  await using folder = await tempFolder();
  await using database = await Database.make(folder.file("bare.db"));
  await using second = await Application.start(database.path);
  const stop = load === "both nodes" ? fullSpeed(database.app, FULL_SPEED_FIRST[0]) : undefined;
  const { commits } = await second.paced(work(WATCHED_ROWS, { first: WATCHED_FIRST }), PAUSE_S, seconds);
  await stop?.();
  return milliseconds(commits);
}

async function measureRound(result: Measurement, system: System, load: Load, seconds: number): Promise<string> {
  const bare = await measureBare(load, seconds);
  await using cluster = await startCluster({ system });
  await warmUp(cluster);
  const [a, b] = [cluster.node(0), cluster.node(1)];
  await using watched = await Application.start(b.database.path);
  await using upgrader = await Application.start(b.database.path);
  const stopMeter = await startMeter(cluster);
  const stops = [
    ...(load === "nobody" ? [] : [fullSpeed(a.app, FULL_SPEED_FIRST[0])]),
    ...(load === "both nodes" ? [fullSpeed(b.app, FULL_SPEED_FIRST[1])] : []),
  ];
  const what = work(WATCHED_ROWS, { first: WATCHED_FIRST });
  const { commits, waits } = await watched.paced(what, PAUSE_S, seconds);
  const again = work(WATCHED_ROWS, { first: WATCHED_FIRST + WATCHED_ROWS });
  // An application that upgrades has to lose against its own full-speed neighbour, so that load tells nothing.
  const upgrades = load === "both nodes" ? undefined : await upgrader.upgrading(again, PAUSE_S, seconds);
  const written = await Promise.all(stops.map((stop) => stop()));
  await cluster.drained();
  // Drained means that the own changes are back; those of the other node may still be on their way.
  await same(a, b);
  const rows = written.reduce((sum, count) => sum + count, commits.count + (upgrades?.done ?? 0));
  result.costs.push(await stopMeter(rows));
  const { p50, p99, max } = milliseconds(commits);
  const waited = milliseconds(waits);
  result.add({ bareP50: bare.p50, bareP99: bare.p99, bareMax: bare.max });
  result.add({ commitP50: p50, commitP99: p99, commitMax: max });
  result.add({ waitP99: waited.p99, waitMax: waited.max });
  if (upgrades !== undefined) result.add({ busy: upgrades.busy / upgrades.done });
  return `commits p50 ${p50.toFixed(2)}, p99 ${p99.toFixed(2)}, max ${max.toFixed(1)} ms, ` +
    `waits for the lock p99 ${waited.p99.toFixed(1)}, max ${waited.max.toFixed(1)} ms` +
    (upgrades === undefined ? "" : `, busy ${upgrades.busy} of ${upgrades.done}`);
}

/** Waits until both have the same rows. */
async function same(one: Node, other: Node): Promise<void> {
  const started = await one.app.now();
  while (JSON.stringify(await one.app.rows(STATE)) !== JSON.stringify(await other.app.rows(STATE))) {
    if (await one.app.now() - started > SAME_TIMEOUT_S * NS_PER_SECOND) {
      throw new Error(`${one.name} and ${other.name} don't become the same`);
    }
    await sleep(SAME_PAUSE_MS);
  }
}
