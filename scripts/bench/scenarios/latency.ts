/** From the return of a commit on one node to the moment another node's application can read the row. */
import { answerTimes } from "../broker.ts";
import { startCluster, TABLE } from "../cluster.ts";
import { startMeter } from "../meter.ts";
import { Measurement, quantile } from "../results.ts";
import { measureInTurn, NS_PER_MS, type Scenario, warmUp, work } from "../run.ts";
import type { System } from "../systems.ts";

const ROWS = 1_000;
const QUICK_ROWS = 200;
/** between two rows on average; random, so that nothing falls into step */
const PAUSE_S = 0.01;
/** between two looks of the reader; with the look itself it is the error of each time, always to Marmot's disadvantage */
const LOOK_PAUSE_S = 0.0001;
const SYNCS = 200;
const MS_PER_SECOND = 1_000;
const TIMEOUT_S = 600;

export const LATENCY: Scenario = {
  name: "latency",
  about: "Single rows at random moments, 100 a second, on nodes that have nothing else to do.",
  measure: (run) => {
    const rows = run.quick ? QUICK_ROWS : ROWS;
    return measureInTurn(
      run,
      (system) => new Measurement("latency", system.name, "100 rows a second", rows),
      measureRound,
    );
  },
};

async function measureRound(result: Measurement, system: System): Promise<string> {
  await using cluster = await startCluster({ system });
  await warmUp(cluster);
  // The broker syncs each message, so no row can be faster than this, nor than the broker's answer.
  const disk = await cluster.node(0).app.sync(`${cluster.node(0).database.path}.sync`, SYNCS);
  const answers = await answerTimes(cluster.broker.server.url, SYNCS, PAUSE_S * MS_PER_SECOND);
  // Each id is the highest so far, so that one look tells what has arrived.
  const first = 2_000_000_000;
  const what = work(result.rows, { first });
  const stopMeter = await startMeter(cluster);
  const last = first + result.rows - 1;
  const watching = cluster.node(1).reader.watch(`SELECT max(id) FROM ${TABLE}`, last, LOOK_PAUSE_S, TIMEOUT_S);
  const { ends } = await cluster.node(0).app.paced(what, PAUSE_S, TIMEOUT_S);
  const { seen } = await watching;
  await cluster.drained();
  result.costs.push(await stopMeter(result.rows));
  const delays = arrivals(first, ends, seen).map((ns) => ns / NS_PER_MS);
  result.add({
    syncP50: disk.p50 / NS_PER_MS,
    syncP99: disk.p99 / NS_PER_MS,
    answerP50: quantile(answers, 0.5),
    answerP99: quantile(answers, 0.99),
    visibleP50: quantile(delays, 0.5),
    visibleP99: quantile(delays, 0.99),
    visibleMax: Math.max(...delays),
  });
  return `p50 ${quantile(delays, 0.5).toFixed(2)} ms, p99 ${quantile(delays, 0.99).toFixed(2)} ms; ` +
    `one fsync p50 ${(disk.p50 / NS_PER_MS).toFixed(2)} ms, the broker's answer ${
      quantile(answers, 0.5).toFixed(2)
    } ms`;
}

/** Of each row, how long after its commit it was first seen. */
function arrivals(
  first: number,
  ends: readonly number[],
  seen: readonly (readonly [value: number, at: number])[],
): number[] {
  const delays: number[] = [];
  let look = 0;
  for (const [place, end] of ends.entries()) {
    while (look < seen.length && (seen[look]?.[0] ?? 0) < first + place) look++;
    const at = seen[look]?.[1];
    if (at === undefined) throw new Error(`row ${first + place} never arrived`);
    delays.push(at - end);
  }
  return delays;
}
