/** Nodes that have nothing to do: CPU and memory, and how long a start takes, also with very many tables. */
import { setTimeout as sleep } from "node:timers/promises";
import { SCHEMA, startCluster, TABLES } from "../cluster.ts";
import { memoryOf, secondsBetween, threadSeconds } from "../processes.ts";
import { Measurement } from "../results.ts";
import { measureInTurn, NS_PER_MS, NS_PER_SECOND, type Scenario } from "../run.ts";
import type { System } from "../systems.ts";

const MANY_TABLES = 2_000;
/** until what a start leaves behind is done */
const SETTLE_MS = 5_000;
const IDLE_MS = 20_000;
const QUICK_IDLE_MS = 6_000;
const LOOK_PAUSE_S = 0.001;
const TIMEOUT_S = 120;

export const IDLE: Scenario = {
  name: "idle",
  about: "Two nodes that have nothing to do, with 3 tables and with 2,000 more.",
  measure: async (run) => {
    const results: Measurement[] = [];
    for (const more of [0, MANY_TABLES]) {
      results.push(
        ...await measureInTurn(
          run,
          (system) => new Measurement("idle", system.name, `${TABLES + more} tables`, 0),
          (result, system) => measureRound(result, system, more, run.quick ? QUICK_IDLE_MS : IDLE_MS),
        ),
      );
    }
    return results;
  },
};

async function measureRound(
  result: Measurement,
  system: System,
  more: number,
  idleMs: number,
): Promise<string> {
  const tables = Array.from({ length: more }, (_, place) => `CREATE TABLE more_${place}(id TEXT PRIMARY KEY, v);`);
  await using cluster = await startCluster({ system, schema: SCHEMA + tables.join("\n") }, TABLES + more);
  await sleep(SETTLE_MS);
  const [a, b] = [cluster.node(0), cluster.node(1)];
  const before = [await a.app.now(), await threadSeconds(a.pid), await threadSeconds(b.pid)] as const;
  await sleep(idleMs);
  const after = [await a.app.now(), await threadSeconds(a.pid), await threadSeconds(b.pid)] as const;
  const elapsed = (after[0] - before[0]) / NS_PER_SECOND;
  const resident = (await memoryOf(a.pid)).resident;
  await b.stop();
  await a.app.script("INSERT INTO mark VALUES (1, 1)");
  const watching = b.reader.watch("SELECT max(id) FROM mark", 1, LOOK_PAUSE_S, TIMEOUT_S);
  const asked = await a.app.now();
  await b.spawn();
  const at = (await watching).seen.at(-1)?.[1];
  if (at === undefined) throw new Error("a node that was started again gets no changes");
  const cpu = (secondsBetween(before[1], after[1]) + secondsBetween(before[2], after[2])) / 2 / elapsed;
  result.add({ idleCpu: cpu, resident, start: (at - asked) / NS_PER_MS });
  return `${(cpu * 100).toFixed(2)} % of a core, ${resident.toFixed(0)} MB, ` +
    `start ${((at - asked) / NS_PER_MS).toFixed(0)} ms`;
}
