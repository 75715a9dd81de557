#!/usr/bin/env -S deno run --allow-all
/** The command line: argv → configuration → adapters → one command. Only this file prints or ends the process. */
import process from "node:process";
import { cleanUp } from "./src/cleanup.ts";
import { type Invocation, parseArguments } from "./src/cli/arguments.ts";
import { brokerSource } from "./src/cli/broker_source.ts";
import { joinCommand } from "./src/cli/join.ts";
import { STDERR, STDOUT, writeNow } from "./src/cli/output.ts";
import { type ReadConfig, readConfig, requireDatabase } from "./src/cli/read_config.ts";
import { runNode } from "./src/cli/run.ts";
import { versionText } from "./src/cli/versions.ts";
import { cloneDatabase } from "./src/clone.ts";
import { printConfig, printTemplate } from "./src/config/print.ts";
import { EXIT, type ExitCode, MarmotError } from "./src/errors.ts";
import { createLog } from "./src/log.ts";
import type { Log } from "./src/runtime.ts";
import { systemRuntime } from "./src/runtime/system.ts";
import { formatStatus, readStatus } from "./src/status.ts";

/** A stop that takes longer is ended by force. */
const STOP_TIMEOUT_MS = 2_000;
/** A signal to a process group comes twice, from the group and from `deno task`; a person is slower. */
const SAME_STOP_MS = 500;

function print(text: string): void {
  writeNow(STDOUT, text.endsWith("\n") ? text : `${text}\n`);
}

function complain(text: string): void {
  writeNow(STDERR, `marmot: ${text}\n`);
}

async function main(): Promise<ExitCode> {
  const invocation = parseArguments(process.argv.slice(2));
  if (invocation.command === "help") print(invocation.text);
  else if (invocation.command === "version") print(versionText());
  else if (invocation.command === "config" && invocation.template) print(printTemplate());
  else {
    const surroundings = { variables: process.env, directory: process.cwd() };
    return await perform(invocation, await readConfig(invocation.flags, surroundings));
  }
  return EXIT.ok;
}

type Configured = Exclude<Invocation, { command: "help" | "version" }>;

async function perform(invocation: Configured, read: ReadConfig): Promise<ExitCode> {
  const log = makeLog(read);
  if (invocation.command === "run") return await run(read, log);
  for (const warning of read.warnings) complain(warning);
  if (invocation.command === "config") {
    print(printConfig(read));
    return EXIT.ok;
  }
  const dbPath = requireDatabase(read);
  switch (invocation.command) {
    case "status": {
      const report = await readStatus(dbPath);
      print(invocation.json ? toJson(report) : formatStatus(report));
      break;
    }
    case "join-command": {
      const { commands, notes } = joinCommand(read, dbPath);
      print(commands);
      for (const note of notes) writeNow(STDERR, `# ${note}\n`);
      break;
    }
    case "clone": {
      const { clock } = systemRuntime(log);
      await cloneDatabase({ from: dbPath, to: invocation.to, log, clock, signal: stopSignal(log) });
      break;
    }
    case "cleanup": {
      const { removed } = await cleanUp({ dbPath, force: invocation.force });
      print(removed.length === 0 ? "Nothing to remove." : removed.map((name) => `Removed ${name}`).join("\n"));
    }
  }
  return EXIT.ok;
}

async function run(read: ReadConfig, log: Log): Promise<ExitCode> {
  for (const warning of read.warnings) log.warn(warning);
  const dbPath = requireDatabase(read);
  const stop = stopSignal(log);
  const source = brokerSource(read, log);
  try {
    return await runNode(read, dbPath, source, log, stop);
  } catch (error) {
    if (!(error instanceof MarmotError)) throw error;
    log.error(error.message);
    return error.exitCode;
  } finally {
    await source.close();
  }
}

/** Aborted by SIGTERM or SIGINT. A second signal, or too long a stop, ends the process; an embedded broker ends with it. */
function stopSignal(log: Log): AbortSignal {
  const stop = new AbortController();
  let stoppedAt = 0;
  const force = (reason: string) => {
    log.warn("Ended by force", { reason });
    process.exit(EXIT.failure);
  };
  for (const name of ["SIGTERM", "SIGINT"] as const) {
    process.on(name, () => {
      const now = performance.now();
      if (stop.signal.aborted && now - stoppedAt < SAME_STOP_MS) return;
      if (stop.signal.aborted) return force(`a second signal (${name})`);
      stoppedAt = now;
      log.info("Stopping", { signal: name });
      setTimeout(() => force(`stopping took more than ${STOP_TIMEOUT_MS} ms`), STOP_TIMEOUT_MS);
      stop.abort(new MarmotError(`Stopped by ${name}.`, EXIT.failure));
    });
  }
  return stop.signal;
}

function makeLog({ config }: ReadConfig): Log {
  const colors = process.stderr.isTTY === true && !process.env.NO_COLOR;
  return createLog({
    format: config.logFormat,
    level: config.logLevel,
    colors,
    write: (line) => writeNow(STDERR, line),
  });
}

/** What is not known is null: each key is there in every report. */
function toJson(value: unknown): string {
  return JSON.stringify(value, (_, element) => typeof element === "bigint" ? String(element) : element ?? null, 2);
}

async function end(): Promise<void> {
  try {
    process.exit(await main());
  } catch (error) {
    if (error instanceof MarmotError) {
      complain(error.message);
      process.exit(error.exitCode);
    }
    complain(`unexpected failure: ${error instanceof Error ? error.stack ?? error.message : error}`);
    process.exit(EXIT.failure);
  }
}

await end();
