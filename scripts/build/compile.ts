/** From sources to an executable: one bundle, then `deno compile` or Bun's compiler, with nats-server inside. */
import { execFile } from "node:child_process";
import { access, copyFile, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import process, { env } from "node:process";
import { promisify } from "node:util";
import { BUN_VERSION, bunProgram } from "../test_runtimes.ts";
import { isNative, type RuntimeName, type Target } from "./targets.ts";

const COMPILE_TIMEOUT_MS = 600_000;
const OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024;
const BUNDLE = "marmot.js";

/** Beside the bundle; src/nats/server_embedded.ts reads them there. */
const INSIDE = ["nats-server", "nats-server.json"];

/** All variables that Marmot and its packages read; any other one is not there for it. */
const VARIABLES = [
  ...["MARMOT_*", "NOTIFY_SOCKET", "XDG_CACHE_HOME", "PATH", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"],
  ...["LOCALAPPDATA", "SYSTEMROOT", "TEMP", "TMP"],
];

/**
 * What the Deno binary may do. Files and hosts are named by the user, and nats-server lies where it was unpacked, so these
 * can't be narrowed to a list. No foreign library, no import of code, no prompt for more.
 */
const PERMISSIONS = [
  ...["--allow-read", "--allow-write", "--allow-net", "--allow-run", "--allow-sys=hostname,homedir,uid,statfs"],
  ...[`--allow-env=${VARIABLES.join(",")}`, "--ignore-env", "--deny-ffi", "--deny-import", "--no-prompt"],
];

export interface Runtime {
  readonly name: RuntimeName;
  readonly version: string;
  readonly sqlite: string;
  /** V8 or JavaScriptCore */
  readonly engine: string;
  /** its program, on this machine */
  readonly program: string;
}

export interface Parts {
  readonly natsServer: string;
  readonly natsServerRecord: { readonly version: string; readonly sha256: string };
}

const run = promisify(execFile);

/** The runtime whose compiler is used. With DENORT_BIN, the Deno beside that file, since both have to be of one version. */
export async function compilingRuntime(name: RuntimeName): Promise<Runtime> {
  const program = name === "bun" ? await bunProgram() : await compilingDeno();
  const script = `import { DatabaseSync } from "node:sqlite"; import { versions } from "node:process";
    const [sqlite] = Object.values(new DatabaseSync(":memory:").prepare("SELECT sqlite_version()").get());
    console.log(JSON.stringify({ version: versions.${name}, sqlite, engine: versions.v8 ?? versions.webkit }));`;
  const { stdout } = await run(program, name === "bun" ? ["-e", script] : ["eval", "--quiet", script]);
  const found: Pick<Runtime, "version" | "sqlite" | "engine"> = JSON.parse(stdout);
  if (name === "bun" && found.version !== BUN_VERSION) throw new Error(`Cannot build: Bun ${found.version} came up`);
  return { name, program, ...found };
}

async function compilingDeno(): Promise<string> {
  const denort = env.DENORT_BIN;
  if (denort === undefined || denort === "") return process.execPath;
  const beside = join(dirname(resolve(denort)), process.platform === "win32" ? "deno.exe" : "deno");
  return await access(beside).then(() => beside, () => process.execPath);
}

/** @param staging a folder of its own, made empty first; nothing else gets into the executable */
export async function compile(
  runtime: Runtime,
  target: Target,
  parts: Parts,
  staging: string,
  output: string,
): Promise<void> {
  await rm(staging, { recursive: true, force: true });
  await mkdir(staging, { recursive: true });
  await run(process.execPath, ["bundle", "--quiet", "--platform=deno", `--output=${join(staging, BUNDLE)}`, "cli.ts"]);
  await copyFile(parts.natsServer, join(staging, "nats-server"));
  await writeFile(join(staging, "nats-server.json"), JSON.stringify(parts.natsServerRecord));
  // Under the name that the program shall have: Bun puts it into its messages.
  const made = target.platform === "win32" ? "marmot.exe" : "marmot";
  const args = runtime.name === "deno" ? denoArguments(target, made) : bunArguments(target, made);
  const options = { cwd: staging, timeout: COMPILE_TIMEOUT_MS, maxBuffer: OUTPUT_LIMIT_BYTES };
  await run(runtime.program, args, options).catch((error: { stderr?: string; message: string }) => {
    throw new Error(explain(runtime, error.stderr || error.message));
  });
  await rename(join(staging, made), output);
  await rm(staging, { recursive: true });
}

/**
 * What V8 may keep: MB of one semi-space of the young generation, and by how much the old one grows before it is
 * collected. V8's own choices cost a third more memory at a large backlog; with a smaller young generation, batches
 * outlive it (measured: 2 MB, the receiver takes 20 to 25 % more CPU for a row, and up to 35 MB more memory). Buffers that
 * a thread of its own gives back stay with the process for longer: some 15 MB at full speed.
 */
const HEAP = "--v8-flags=--max-semi-space-size=8,--heap-growing-percent=50,--no-concurrent-array-buffer-sweeping";

function denoArguments(target: Target, made: string): string[] {
  if (target.deno === undefined) {
    throw new Error(`Cannot compile for ${target.name}: Deno has no runtime for it. Use --runtime bun.`);
  }
  // Its code cache would be a file in the folder for temporary files, which others can foresee.
  const plain = ["--quiet", "--no-check", "--no-config", "--no-lock", "--no-code-cache"];
  const cross = isNative(target) ? [] : ["--target", target.deno];
  const include = INSIDE.flatMap((name) => ["--include", name]);
  return ["compile", ...plain, HEAP, ...PERMISSIONS, ...cross, ...include, "--output", made, BUNDLE];
}

function bunArguments(target: Target, made: string): string[] {
  const cross = isNative(target) ? [] : [`--target=${target.bun}`];
  // Otherwise the binary would read these from the folder it is started in.
  const unread = ["dotenv", "bunfig", "tsconfig", "package-json"].map((name) => `--no-compile-autoload-${name}`);
  const include = INSIDE.flatMap((name) => ["--asset", name]);
  return ["build", "--compile", ...unread, ...cross, ...include, "--outfile", made, BUNDLE];
}

function explain({ name, version }: Runtime, output: string): string {
  if (name === "deno" && /denort|download|dns error|error sending request/i.test(output)) {
    return `Cannot compile with Deno ${version}: its runtime can't be downloaded. Name one with DENORT_BIN; on Linux x64, ` +
      `\`deno run --allow-all scripts/denort.ts\` makes one for tests.\n${output}`;
  }
  return `Cannot compile with ${name} ${version}: ${output}`;
}
