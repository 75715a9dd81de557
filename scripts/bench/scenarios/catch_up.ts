/** What piled up while a part was away: how fast it goes once the part is back, and what memory it takes. */
import { type Cluster, startCluster, TABLE } from "../cluster.ts";
import { startMeter } from "../meter.ts";
import { Measurement } from "../results.ts";
import {
  arrived,
  measureInTurn,
  NS_PER_MS,
  rate,
  type Run,
  type Scenario,
  seconds,
  STATE,
  warmUp,
  work,
  writeBare,
} from "../run.ts";
import type { System } from "../systems.ts";

const PER_TRANSACTION = 100;
const LOOK_PAUSE_S = 0.001;
const TIMEOUT_S = 3_600;
const SIZES = [10_000, 100_000, 1_000_000];
const QUICK_SIZES = [10_000, 100_000];
const LARGE_SIZE = 10_000_000;
const CATCH_UP_ROWS = 1_000_000;

type Away = "replica" | "writer's Marmot" | "broker";

export const CATCH_UP: Scenario = {
  name: "catch-up",
  about: "A node comes back after others wrote.",
  measure: (run) => measureAll("catch-up", ["replica"], [run.quick ? 100_000 : CATCH_UP_ROWS], run),
};

export const BACKLOG: Scenario = {
  name: "backlog",
  about: "Changes pile up in the change log while Marmot is stopped or the broker is away; then it comes back.",
  measure: (run) => {
    const sizes = run.quick ? QUICK_SIZES : [...SIZES, ...(run.large ? [LARGE_SIZE] : [])];
    return measureAll("backlog", ["writer's Marmot", "broker"], sizes, run);
  },
};

async function measureAll(
  scenario: string,
  aways: readonly Away[],
  sizes: readonly number[],
  run: Run,
): Promise<Measurement[]> {
  const results: Measurement[] = [];
  for (const away of aways) {
    for (const size of sizes) {
      const variant = `${away} away, ${size} rows`;
      results.push(
        ...await measureInTurn(
          run,
          (system) => new Measurement(scenario, system.name, variant, Math.round(size * system.share)),
          (result, system) => measureRound(result, system, away),
        ),
      );
    }
  }
  return results;
}

async function measureRound(result: Measurement, system: System, away: Away): Promise<string> {
  const rows = result.rows;
  const bareRows = Math.min(rows, 200_000);
  const bare = bareRows / seconds(await writeBare(work(bareRows), PER_TRANSACTION));
  await using cluster = await startCluster({ system });
  await warmUp(cluster);
  await leave(cluster, away);
  // Above all ids so far, so that the highest tells how far a node is.
  const first = 2_000_000_000;
  await cluster.node(0).app.write(work(rows, { first }), PER_TRANSACTION);
  if (away === "replica") await cluster.drained();
  const reader = cluster.node(1).reader;
  const watching = reader.watch(`SELECT max(id) FROM ${TABLE}`, first + rows - 1, LOOK_PAUSE_S, TIMEOUT_S);
  const back = await cluster.node(0).app.now();
  await comeBack(cluster, away);
  const stopMeter = await startMeter(cluster);
  const { reached, seen } = await watching;
  if (!reached) throw new Error(`${cluster.node(1).name} did not catch up in time`);
  await arrived(cluster.node(1), await cluster.node(0).app.rows(STATE));
  await cluster.drained();
  result.costs.push(await stopMeter(rows));
  // The value that was there before is the first one seen.
  const [begun, end] = [seen.find(([id]) => id >= first), seen.at(-1)];
  if (begun === undefined || end === undefined) throw new Error("no row was ever seen");
  const catchUp = end[1] === begun[1] ? rate(rows, end[1] - back) : rate(end[0] - begun[0], end[1] - begun[1]);
  const figures = { bare, catchUp, catchUpRatio: catchUp / bare, start: (begun[1] - back) / NS_PER_MS };
  result.add({ ...figures, all: (end[1] - back) / NS_PER_MS });
  return `${Math.round(catchUp)} rows/s after ${figures.start.toFixed(0)} ms`;
}

async function leave({ nodes, broker }: Cluster, away: Away): Promise<void> {
  if (away === "broker") await broker.server.stop();
  else await nodes[away === "replica" ? 1 : 0]?.stop();
}

async function comeBack({ nodes, broker }: Cluster, away: Away): Promise<void> {
  if (away === "broker") await broker.server.restart();
  else await nodes[away === "replica" ? 1 : 0]?.spawn();
}
