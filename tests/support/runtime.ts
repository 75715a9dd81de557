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

/**
 * The command line that starts Marmot: cli.ts on the runtime of this test, or what the variable MARMOT_PROGRAM says
 * (words with spaces between them), so that the same tests try a compiled binary.
 */
export function marmotCommand(): string[] {
  const program = env.MARMOT_PROGRAM;
  if (program !== undefined && program.trim() !== "") return program.trim().split(/\s+/);
  return scriptCommand("cli.ts");
}
