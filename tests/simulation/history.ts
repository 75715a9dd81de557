/** One history: a cluster begins, things happen to it, and in the end it must come to rest, with nothing lost. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { Random } from "../support/random.ts";
import { act, brokerIsBack, drawPause, setAway } from "./actions.ts";
import { Killed } from "./connection.ts";
import type { Counters } from "./counters.ts";
import { atRest } from "./end.ts";
import { drawSetting } from "./setting.ts";
import { Violation } from "./violation.ts";
import { settled } from "./virtual_time.ts";
import { type Trace, World } from "./world.ts";

/** A first start takes no longer, ms */
const START_MS = 60_000;
/** Everything comes to rest within this, ms */
const REST_MS = 600_000;
const REST_POLL_MS = 500;

/** What a failure begins with that is the simulation's own */
export const BROKEN = "the simulation broke";

export interface HistoryOptions {
  readonly seed: number;
  /** at most so many actions */
  readonly steps?: number;
  readonly trace?: Trace;
}

export interface HistoryResult {
  readonly seed: number;
  readonly steps: number;
  /** of everything that happened */
  readonly digest: string;
  readonly counters: Counters;
  readonly failure: string | undefined;
  /** how many actions it needs to fail as it did */
  readonly failedAt: number;
}

/** Nobody waits for a promise of a killed process; that of a living one would end it. */
let current: World | undefined;
process.on("unhandledRejection", (error) => {
  if (!(error instanceof Killed)) current?.violated(new Violation(`a process would end: ${(error as Error).stack}`));
});

export async function runHistory({ seed, steps, trace }: HistoryOptions): Promise<HistoryResult> {
  const random = new Random(seed);
  const setting = drawSetting(random);
  const folder = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "marmot-sim-"));
  const world = current = new World(random, setting, folder, trace);
  let step = 0;
  let failure: string | undefined;
  try {
    trace?.(setting.sql.join(";\n"));
    trace?.(JSON.stringify({ ...setting, sql: undefined, tables: undefined }));
    await begin(world);
    world.begun = true;
    for (; step < Math.min(steps ?? Infinity, setting.steps); step++) {
      await world.run(world.time.now + drawPause(world));
      trace?.(`--- step ${step + 1}`);
      world.note(`${await act(world)} ${world.time.events} ${random.next()}`);
      await settled();
      world.afterEvent();
    }
    await end(world);
  } catch (error) {
    failure = error instanceof Violation ? error.message : `${BROKEN}: ${(error as Error).stack}`;
    trace?.(failure);
  } finally {
    world.counters.add("events", world.time.events);
    world.counters.add("virtual seconds", Math.round(world.time.now / 1000));
    world.close();
    await settled();
    rmSync(folder, { recursive: true, force: true });
  }
  // what failed while it waited for its next action does so again only if that one is to come
  const failedAt = Math.min(step + 1, setting.steps);
  return { seed, steps: step, digest: world.digest, counters: world.counters, failure, failedAt };
}

async function begin(world: World): Promise<void> {
  const limit = world.time.now + START_MS;
  while (!world.nodes.every(({ isInstalled, process }) => isInstalled && process?.started)) {
    if (world.time.now >= limit) throw new Violation("the nodes do not start");
    await world.run(world.time.now + 10);
  }
}

/** All faults are over; what is still on its way arrives, or not. */
async function end(world: World): Promise<void> {
  world.ending = true;
  for (const twin of world.twins) twin.kill();
  brokerIsBack(world);
  for (const node of world.nodes) {
    Object.assign(node.weather, { lost: 0, answerLost: 0, late: 0, doubled: 0 });
    setAway(node, false);
    node.fault = undefined;
    if (node.alive !== undefined) node.alive.fuse = undefined;
    else node.start();
  }
  const limit = world.time.now + REST_MS;
  for (;;) {
    await world.run(world.time.now + REST_POLL_MS);
    for (const node of world.nodes) {
      if (node.alive === undefined) node.start();
      const left = world.setting.migrations === undefined ? undefined : world.setting.later[node.changes];
      if (left !== undefined) node.application.change(left);
    }
    const unrest = atRest(world);
    if (unrest === undefined) return;
    if (world.time.now >= limit) throw new Violation(`it does not come to rest: ${unrest}`);
  }
}
