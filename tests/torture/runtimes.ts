/** What the nodes run on: both runtimes where both are there, or the program under test. */
import { env } from "node:process";
import { bunProgram } from "../../scripts/test_runtimes.ts";
import { marmotCommand, PROJECT, RUNTIME } from "../support/runtime.ts";

export interface NodeRuntime {
  readonly name: string;
  /** starts Marmot, without arguments */
  readonly command: readonly string[];
}

/** At least one; nodes take them in turns. */
export async function nodeRuntimes(): Promise<NodeRuntime[]> {
  const own = marmotCommand();
  if (env.MARMOT_PROGRAM?.trim()) return [{ name: own[0] ?? "", command: own }];
  const runtimes = [{ name: RUNTIME as string, command: own }];
  if (RUNTIME === "bun") return runtimes;
  const bun = await bunProgram().catch(() => undefined);
  return bun === undefined ? runtimes : [...runtimes, { name: "bun", command: [bun, `${PROJECT}cli.ts`] }];
}
