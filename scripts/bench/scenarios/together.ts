/** All nodes write at once, each rows of its own. */
import { startCluster } from "../cluster.ts";
import { startMeter } from "../meter.ts";
import { Measurement } from "../results.ts";
import {
  arrived,
  FIRST,
  measureInTurn,
  NS_PER_MS,
  rate,
  type Scenario,
  seconds,
  STATE,
  warmUp,
  work,
  writeBare,
} from "../run.ts";
import type { System } from "../systems.ts";

const ROWS = 100_000;
const QUICK_ROWS = 30_000;
const PER_TRANSACTION = 100;
/** ids between two nodes */
const APART = 10_000_000;
const LOOK_PAUSE_S = 0.001;
const TIMEOUT_S = 900;

export const TOGETHER: Scenario = {
  name: "together",
  about: "All nodes write at full speed at once, each its own rows; the speeds are those of all together.",
  measure: async (run) => {
    const results: Measurement[] = [];
    for (const nodes of run.quick ? [2] : run.large ? [2, 5, 20] : [2, 5]) {
      const each = run.quick ? QUICK_ROWS : ROWS;
      results.push(
        ...await measureInTurn(
          run,
          (system) => {
            const rows = Math.round(each * system.share) * nodes;
            return new Measurement("together", system.name, `${nodes} nodes`, rows);
          },
          (result, system) => measureRound(result, system, nodes, each),
        ),
      );
    }
    return results;
  },
};

async function measureRound(
  result: Measurement,
  system: System,
  nodes: number,
  bareRows: number,
): Promise<string> {
  const bare = bareRows / seconds(await writeBare(work(bareRows), PER_TRANSACTION));
  await using cluster = await startCluster({ system, nodes });
  await warmUp(cluster);
  const each = result.rows / nodes;
  const stopMeter = await startMeter(cluster);
  // Each writer's mark comes after all its rows, so a node that has all marks has everything.
  const seen = cluster.nodes.map(({ reader }) =>
    reader.watch("SELECT count(*) FROM mark", nodes, LOOK_PAUSE_S, TIMEOUT_S)
  );
  const written = await Promise.all(
    cluster.nodes.map(({ app }, place) => {
      return app.write(work(each, { first: FIRST + place * APART }), PER_TRANSACTION, place + 1);
    }),
  );
  const last = Math.max(...(await Promise.all(seen)).map((one) => one.seen.at(-1)?.[1] ?? NaN));
  await cluster.drained();
  const state = await cluster.node(0).app.rows(STATE);
  for (const node of cluster.nodes) await arrived(node, state);
  result.costs.push(await stopMeter(result.rows));
  const started = Math.min(...written.map((one) => one.started));
  const ended = Math.max(...written.map((one) => one.ended));
  const [replicated, endToEnd] = [rate(result.rows, ended - started), rate(result.rows, last - started)];
  result.add({
    bare,
    replicated,
    replicatedRatio: replicated / bare,
    endToEnd,
    endToEndRatio: endToEnd / bare,
    lag: (last - ended) / NS_PER_MS,
    commitP50: worst(written.map(({ commits }) => commits.p50)),
    commitP99: worst(written.map(({ commits }) => commits.p99)),
    commitMax: worst(written.map(({ commits }) => commits.max)),
    waitP99: worst(written.map(({ waits }) => waits.p99)),
    waitMax: worst(written.map(({ waits }) => waits.max)),
  });
  return `${Math.round(replicated)} rows/s written, ${Math.round(endToEnd)} rows/s end to end`;
}

/** Of the node that has it worst, in ms. */
function worst(times: readonly number[]): number {
  return Math.max(...times) / NS_PER_MS;
}
