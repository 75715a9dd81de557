/** Measures what a piece of work costs: CPU of each process, traffic of the broker, peak memory, and others' CPU. */
import process from "node:process";
import type { Cluster } from "./cluster.ts";
import { cpuSeconds, machineCpuSeconds, memoryOf } from "./processes.ts";
import type { Cost } from "./results.ts";

const ROWS_PER_UNIT = 1_000;
const NS_PER_SECOND = 1e9;

/** Begins to count; the answer stops and gives the cost of so many rows. */
export async function startMeter(cluster: Cluster): Promise<(rows: number) => Promise<Cost>> {
  const pids = pidsOf(cluster);
  const before = await reading(cluster, pids);
  return async (rows) => {
    const after = await reading(cluster, pids);
    const spent = Object.keys(pids).map((name) => [name, (after.cpu[name] ?? 0) - (before.cpu[name] ?? 0)] as const);
    const own = spent.reduce((sum, [, seconds]) => sum + seconds, 0) + after.harness - before.harness;
    const units = rows / ROWS_PER_UNIT;
    const memory = Object.entries(pids).filter(([name]) => !name.startsWith("application"));
    return {
      cpu: Object.fromEntries(spent.map(([name, seconds]) => [name, seconds / units])),
      bytesIn: (after.traffic.received - before.traffic.received) / units,
      bytesOut: (after.traffic.sent - before.traffic.sent) / units,
      peakMemory: Object.fromEntries(
        await Promise.all(memory.map(async ([name, pid]) => [name, (await memoryOf(pid)).peak] as const)),
      ),
      foreignCores: Math.max(0, (after.machine - before.machine - own) / (after.at - before.at)),
    };
  };
}

function pidsOf({ nodes, broker }: Cluster): Record<string, number> {
  const pids: Record<string, number> = {};
  for (const node of nodes) {
    if (node.process !== undefined) pids[`node ${node.name}`] = node.pid;
    pids[`application ${node.name}`] = node.app.pid;
    pids[`application ${node.name}, reader`] = node.reader.pid;
  }
  pids.broker = broker.server.pid;
  return pids;
}

async function reading(cluster: Cluster, pids: Readonly<Record<string, number>>) {
  const names = Object.entries(pids);
  const seconds = await Promise.all(names.map(async ([name, pid]) => [name, await cpuSeconds(pid)] as const));
  return {
    at: Number(process.hrtime.bigint()) / NS_PER_SECOND,
    cpu: Object.fromEntries(seconds) as Record<string, number>,
    machine: await machineCpuSeconds(),
    harness: await cpuSeconds(process.pid),
    traffic: await cluster.broker.traffic(),
  };
}
