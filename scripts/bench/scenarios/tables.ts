/** Does the cost of a row grow: with the rows a table has, or with pending changes of a table with UNIQUE values? */
import { type Cluster, makeCluster, SCHEMA, startCluster, TABLE } from "../cluster.ts";
import { startMeter } from "../meter.ts";
import { Measurement } from "../results.ts";
import {
  arrived,
  measureInTurn,
  NS_PER_MS,
  rate,
  type Scenario,
  seconds,
  STATE,
  warmUp,
  work,
  writeBare,
  writeReplicated,
} from "../run.ts";
import type { System } from "../systems.ts";

const PER_TRANSACTION = 100;
const UPDATES = 100_000;
const QUICK_UPDATES = 20_000;
const SIZES = [10_000, 1_000_000];
const QUICK_SIZES = [10_000, 100_000];
const LARGE_SIZE = 10_000_000;
/** pending on one node while as many of the other arrive */
const PENDING = 1_000_000;
const QUICK_PENDING = 50_000;
/** ids of each node's rows begin here */
const FIRST = [10_000_000, 20_000_000];
const UNIQUE = `${SCHEMA} CREATE UNIQUE INDEX unique_number ON ${TABLE}(number);`;

export const TABLE_SIZE: Scenario = {
  name: "table-size",
  about: "Updates of random rows in tables that have few rows and many.",
  measure: async (run) => {
    const sizes = run.quick ? QUICK_SIZES : [...SIZES, ...(run.large ? [LARGE_SIZE] : [])];
    const updates = run.quick ? QUICK_UPDATES : UPDATES;
    const results: Measurement[] = [];
    for (const size of sizes) {
      results.push(
        ...await measureInTurn(
          run,
          (system) => {
            const rows = Math.round(updates * system.share);
            return new Measurement("table-size", system.name, `table of ${size} rows`, rows);
          },
          (result, system) => measureSize(result, system, size),
        ),
      );
    }
    return results;
  },
};

async function measureSize(result: Measurement, system: System, size: number): Promise<string> {
  const what = work(result.rows, { kind: "update", among: size });
  const fill = (app: Cluster["nodes"][number]["app"]) => app.fill(work(size));
  const bare = result.rows / seconds(await writeBare(what, PER_TRANSACTION, fill));
  await using cluster = await startCluster({ system, prepare: fill });
  await warmUp(cluster);
  const stopMeter = await startMeter(cluster);
  const { written, visible } = await writeReplicated(cluster, what, PER_TRANSACTION, 1);
  await cluster.drained();
  result.costs.push(await stopMeter(result.rows));
  const last = Math.max(...visible);
  const [replicated, endToEnd] = [result.rows / seconds(written), rate(result.rows, last - written.started)];
  const lag = (last - written.ended) / NS_PER_MS;
  const ratios = { replicatedRatio: replicated / bare, endToEndRatio: endToEnd / bare };
  result.add({ bare, replicated, endToEnd, lag, ...ratios });
  return `replicated ${Math.round(replicated)} rows/s, end to end ${Math.round(endToEnd)} rows/s`;
}

/** What is there when the node comes back, by who wrote it. What both wrote must cost no more than what each did. */
const PENDING_OF = [["what others wrote", [0]], ["what it wrote", [1]], ["both", [0, 1]]] as const;

export const PENDING_CHANGES: Scenario = {
  name: "pending",
  about:
    "A node comes back: to many changes of the other node, with many of its own to publish, and with both at once.",
  measure: async (run) => {
    const results: Measurement[] = [];
    const pending = run.quick ? QUICK_PENDING : PENDING;
    for (const [constraint, schema] of [["no UNIQUE", SCHEMA], ["UNIQUE besides the key", UNIQUE]] as const) {
      for (const [whose, writers] of PENDING_OF) {
        results.push(
          ...await measureInTurn(
            run,
            (system) => {
              const rows = Math.round(pending * system.share) * writers.length;
              return new Measurement("pending", system.name, `${constraint}, ${whose}`, rows);
            },
            (result, system) => measurePending(result, system, schema, writers),
          ),
        );
      }
    }
    return results;
  },
};

/** @param writers indexes of the nodes whose application writes while the second node is away */
async function measurePending(
  result: Measurement,
  system: System,
  schema: string,
  writers: readonly number[],
): Promise<string> {
  await using cluster = await makeCluster({ system, schema });
  for (const node of cluster.nodes) await node.start();
  await cluster.connected();
  await warmUp(cluster);
  const [a, b] = [cluster.node(0), cluster.node(1)];
  const each = result.rows / writers.length;
  await b.stop();
  for (const writer of writers) {
    await cluster.node(writer).app.write(work(each, { first: FIRST[writer]! }), PER_TRANSACTION, writer + 1);
  }
  await cluster.drained();
  const both = [a, b].map(({ reader }) => reader.watch("SELECT count(*) FROM mark", writers.length, 0.001, 3_600));
  const back = await a.app.now();
  await b.spawn();
  const stopMeter = await startMeter(cluster);
  const last = Math.max(...(await Promise.all(both)).map(({ seen }) => seen.at(-1)?.[1] ?? NaN));
  await cluster.drained();
  await arrived(b, await a.app.rows(STATE));
  result.costs.push(await stopMeter(result.rows));
  const catchUp = rate(result.rows, last - back);
  result.add({ catchUp, all: (last - back) / NS_PER_MS });
  return `${Math.round(catchUp)} rows/s`;
}
