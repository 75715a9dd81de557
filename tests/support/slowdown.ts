/** What a promise about time is measured with on a machine that does other things too. */
import process from "node:process";

/** of processor time, to see how much of it others take away */
const SPIN_MS = 60;

/** How many times longer everything takes at the moment because the machine does other things too; 1 on an idle one. */
export function slowdown(): number {
  const started = performance.now();
  const before = process.cpuUsage();
  let used = 0;
  while (used < SPIN_MS) {
    const { user, system } = process.cpuUsage(before);
    used = (user + system) / 1_000;
  }
  return Math.max(1, (performance.now() - started) / used);
}

/** @returns ms that `action` would take on an idle machine: the clock's, divided by how slow the machine is around it */
export async function unhurried(action: () => Promise<unknown>): Promise<number> {
  const before = slowdown();
  const started = performance.now();
  await action();
  const took = performance.now() - started;
  return took / Math.max(before, slowdown());
}
