/**
 * Tortures a cluster of real processes, and checks that it converges and loses nothing.
 *
 *     deno task torture [--minutes M | --seconds S] [--seed N] [--nodes 3..5] [--json FILE] [--keep]
 *
 * Three to five Marmots, on Deno and Bun mixed, three NATS servers and the applications' processes are killed, frozen,
 * cut off and put back to older copies. The exit code is 0 only if every promise was kept; if not, what differed is
 * printed, and databases, journals and logs are kept, as they are with --keep.
 */
import { writeFile } from "node:fs/promises";
import process, { env } from "node:process";
import { parseArgs } from "node:util";
import { commitOf } from "../tests/support/commit.ts";
import { describeTorture } from "../tests/torture/report.ts";
import { torture } from "../tests/torture/run.ts";
import { ensureNatsServer } from "./nats_server.ts";

const DEFAULT_MINUTES = 1;
const SEEDS = 2 ** 31;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: "string" },
      seconds: { type: "string" },
      seed: { type: "string" },
      nodes: { type: "string" },
      json: { type: "string" },
      keep: { type: "boolean" },
    },
  });
  const print = (line: string) => void process.stdout.write(`${line}\n`);
  const seconds = Number(values.seconds ?? Number(values.minutes ?? DEFAULT_MINUTES) * 60);
  const seed = Number(values.seed ?? Math.floor(Math.random() * SEEDS));
  env.MARMOT_NATS_SERVER = (await ensureNatsServer(env.MARMOT_NATS_SERVER, print)).path;
  print(`seed ${seed}, ${seconds} s`);
  const commit = commitOf("src", "tests/torture");
  const started = performance.now();
  const say = (line: string) => print(`${((performance.now() - started) / 1_000).toFixed(1).padStart(7)} ${line}`);
  const nodes = values.nodes === undefined ? undefined : Number(values.nodes);
  const result = await torture({ seconds, seed, nodes, keep: values.keep, say });
  print(describeTorture(result));
  const figures = { commit, ...result, kept: undefined };
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(figures, null, 2)}\n`);
  return result.violations.length === 0 ? 0 : 1;
}

for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));
process.exit(await main());
