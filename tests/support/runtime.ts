/** Which runtime the tests run on, and how to start Marmot on the same one. */
import { fileURLToPath } from "node:url";
import { env, execPath, versions } from "node:process";

export type RuntimeName = "deno" | "bun";

/** The runtime of this test. */
export const RUNTIME: RuntimeName = versions.bun === undefined ? "deno" : "bun";

/** The project's folder. */
export const PROJECT = fileURLToPath(new URL("../../", import.meta.url));

/** The command line, program first, that runs a TypeScript file of this project on the runtime of this test. */
export function scriptCommand(path: string): string[] {
  const file = fileURLToPath(new URL(`../../${path}`, import.meta.url));
  if (RUNTIME === "bun") return [execPath, file];
  // The configuration is named because a test may start it in another folder.
  return [execPath, "run", "--quiet", "--allow-all", "--no-lock", "--config", `${PROJECT}deno.json`, file];
}

/** The compiled Marmot that is tested; undefined when it is the sources. */
export function testedProgram(): string | undefined {
  return env.MARMOT_PROGRAM || undefined;
}

/** The command line that starts Marmot: the compiled one, or cli.ts on the runtime of this test. */
export function marmotCommand(): string[] {
  const program = testedProgram();
  return program === undefined ? scriptCommand("cli.ts") : [program];
}
