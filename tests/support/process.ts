/** Programs that a test starts: their output is kept, and they are gone after the test. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import process from "node:process";

const WAIT_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 10_000;
const RUN_TIMEOUT_MS = 60_000;

/** Marmot refuses variables with its prefix that it does not know, and may have a nats-server of its own inside. */
const FOR_TESTS_ONLY = {
  MARMOT_REQUIRE_ALL: undefined,
  MARMOT_TEST_SKIPS: undefined,
  MARMOT_PROGRAM: undefined,
  MARMOT_NATS_SERVER: undefined,
};

export interface ProgramOptions {
  readonly cwd?: string;
  /** added to the environment of the test; undefined takes a variable out */
  readonly env?: Record<string, string | undefined>;
}

export interface Exit {
  /** null when a signal ended it */
  readonly code: number | null;
  readonly signal: string | null;
}

export interface Program extends AsyncDisposable {
  readonly pid: number;
  /** everything it has printed so far */
  readonly stdout: string;
  readonly stderr: string;
  /** stdout and stderr as they came */
  readonly output: string;
  readonly exited: Promise<Exit>;
  /** Resolves with the match once `output` from `from` on matches. Rejects, with the output, after the time or when it ends. */
  waitFor(pattern: RegExp | string, options?: { timeoutMs?: number; from?: number }): Promise<RegExpExecArray>;
  write(input: string): void;
  signal(signal: NodeJS.Signals): void;
  /** SIGSTOP; SIGCONT lets it go on */
  freeze(): void;
  /** SIGTERM, and SIGKILL if it takes longer than 10 s */
  stop(): Promise<Exit>;
  /** SIGKILL */
  kill(): Promise<Exit>;
}

const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** Starts a program; `command` has the program first. Rejects when it can't be started. */
export async function startProgram(command: readonly string[], options: ProgramOptions = {}): Promise<Program> {
  const [file = "", ...args] = command;
  const env = { ...process.env, ...FOR_TESTS_ONLY, ...options.env };
  const child = spawn(file, args, { cwd: options.cwd, env, stdio: "pipe" });
  await once(child, "spawn");
  return new RunningProgram(child, command.join(" "));
}

export interface Finished extends Exit {
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. Rejects when it can't be started or takes too long. */
export async function runProgram(
  command: readonly string[],
  options: ProgramOptions & { input?: string; timeoutMs?: number } = {},
): Promise<Finished> {
  await using program = await startProgram(command, options);
  program.write(options.input ?? "");
  const timeoutMs = options.timeoutMs ?? RUN_TIMEOUT_MS;
  const exit = await within(timeoutMs, program.exited, () => `${command.join(" ")} still runs:\n${program.output}`);
  return { ...exit, stdout: program.stdout, stderr: program.stderr };
}

class RunningProgram implements Program {
  readonly pid: number;
  readonly exited: Promise<Exit>;
  stdout = "";
  stderr = "";
  output = "";
  #ended = false;
  #listeners = new Set<() => void>();

  constructor(private readonly child: ChildProcess, private readonly title: string) {
    this.pid = child.pid ?? 0;
    running.add(child);
    child.stdin?.on("error", () => {/* it ended without reading all of its input */});
    child.stdout?.setEncoding("utf8").on("data", (text: string) => this.#add("stdout", text));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => this.#add("stderr", text));
    this.exited = new Promise((resolve) => {
      child.once("close", (code, signal) => {
        running.delete(child);
        this.#ended = true;
        resolve({ code, signal });
        this.#tell();
      });
    });
  }

  waitFor(
    pattern: RegExp | string,
    options: { timeoutMs?: number; from?: number } = {},
  ): Promise<RegExpExecArray> {
    const wanted = typeof pattern === "string" ? new RegExp(pattern.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")) : pattern;
    const match = new Promise<RegExpExecArray>((resolve, reject) => {
      const look = () => {
        const found = wanted.exec(this.output.slice(options.from ?? 0));
        if (found === null && !this.#ended) return;
        this.#listeners.delete(look);
        if (found !== null) resolve(found);
        else reject(new Error(`${this.title} ended before it printed ${wanted}:\n${this.output}`));
      };
      this.#listeners.add(look);
      look();
    });
    const failure = () => `${this.title} did not print ${wanted} in time:\n${this.output}`;
    return within(options.timeoutMs ?? WAIT_TIMEOUT_MS, match, failure);
  }

  write(input: string): void {
    this.child.stdin?.end(input);
  }

  signal(signal: NodeJS.Signals): void {
    // Not child.kill: after any signal sent with it, Deno neither sends another nor notices the end.
    if (!this.#ended) signalProcess(this.pid, signal);
  }

  freeze(): void {
    if (!this.#ended) freezeProcess(this.pid);
  }

  async stop(): Promise<Exit> {
    this.signal("SIGTERM");
    const timer = setTimeout(() => this.signal("SIGKILL"), STOP_TIMEOUT_MS);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  async kill(): Promise<Exit> {
    this.signal("SIGKILL");
    return await this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #add(stream: "stdout" | "stderr", text: string): void {
    this[stream] += text;
    this.output += text;
    this.#tell();
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

/**
 * Sends SIGSTOP and returns when the process stands still: a thread that runs on another processor goes on for a moment
 * after the signal, long enough to answer what the test asks next. Where there is no /proc it returns at once.
 */
export function freezeProcess(pid: number): void {
  signalProcess(pid, "SIGSTOP");
  if (process.platform !== "linux") return;
  const limit = performance.now() + STOP_TIMEOUT_MS;
  while (!standsStill(pid)) {
    if (performance.now() > limit) throw new Error(`process ${pid} goes on after SIGSTOP`);
  }
}

function standsStill(pid: number): boolean {
  try {
    // "12 (name) T …": proc(5); a name may hold anything, so the last parenthesis counts.
    const states = readdirSync(`/proc/${pid}/task`)
      .map((thread) => readFileSync(`/proc/${pid}/task/${thread}/stat`, "latin1"))
      .map((stat) => stat.charAt(stat.lastIndexOf(")") + 2));
    return states.every((state) => "TtZX".includes(state));
  } catch (error) {
    // A thread or the whole process ended between the two reads.
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ESRCH")) {
      return !existsSync(`/proc/${pid}`);
    }
    throw error;
  }
}

function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // It ended by itself, and "close" is on its way.
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

/** `promise`, or a rejection after `timeoutMs`. */
export async function within<T>(timeoutMs: number, promise: Promise<T>, message: () => string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`after ${timeoutMs} ms: ${message()}`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
