/** How the test runners of Deno and Bun are called for one file. */
import { execFile } from "node:child_process";
import { basename } from "node:path";
import process, { platform } from "node:process";
import { promisify } from "node:util";

export const BUN_VERSION = "1.4.5";
const TEST_TIMEOUT_MS = 240_000;

export interface TestRuntime {
  readonly name: string;
  readonly version: string;
  /** the command line that runs one test file and writes a JUnit report */
  command(file: string, junit: string): string[];
}

const run = promisify(execFile);

/** The Deno that runs this script; types are checked by `deno check`, once for all files. */
export function denoRuntime(): TestRuntime {
  const version = process.versions.deno;
  if (version === undefined) throw new Error("Cannot run the tests: start this script with Deno (deno task test)");
  return {
    name: "deno",
    version,
    command: (file, junit) => [
      process.execPath,
      ...["test", "--allow-all", "--no-check", "--quiet", `--junit-path=${junit}`, file],
    ],
  };
}

/** A compiled Marmot, which tests on Deno start. */
export async function programRuntime(program: string): Promise<TestRuntime> {
  const { stdout } = await run(program, ["--version"]).catch((cause) => {
    throw new Error(`Cannot test ${program}: ${cause}. Make it with \`deno task build\`.`);
  });
  const [marmot = "", ...others] = stdout.trim().split("\n");
  const version = `${marmot.replace("marmot ", "")} (${others.join(", ")})`;
  return { name: basename(program), version, command: denoRuntime().command };
}

/** The path of Bun in the pinned version, through npx, which keeps it in its own cache. */
export async function bunProgram(): Promise<string> {
  // On Windows npx is a script, which only a shell starts.
  const options = { shell: platform === "win32" };
  return await run("npx", ["-y", `bun@${BUN_VERSION}`, "-p", "process.execPath"], options).then(
    (result) => result.stdout.trim(),
    (error: unknown) => {
      throw new Error(`Cannot run Bun: npx -y bun@${BUN_VERSION} failed: ${error}`);
    },
  );
}

export async function bunRuntime(): Promise<TestRuntime> {
  const path = await bunProgram();
  return {
    name: "bun",
    version: BUN_VERSION,
    command: (file, junit) => [
      path,
      // Without --isolate what one file leaves behind reaches the next; the default timeout is 5 s.
      ...["test", "--isolate", `--timeout=${TEST_TIMEOUT_MS}`, "--reporter=junit", `--reporter-outfile=${junit}`],
      `./${file}`,
    ],
  };
}
