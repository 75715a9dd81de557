/** A Python program in a process of its own, which answers requests in order: JSON lines, {"op": …} and {"ok": …} or {"error": "…"}. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { createInterface } from "node:readline";

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

const running = new Set<ChildProcessWithoutNullStreams>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

export class PythonProgram {
  #waiting: Waiting[] = [];
  #errors = "";
  #ended = false;

  private constructor(private readonly child: ChildProcessWithoutNullStreams) {
    running.add(child);
    child.stdin.on("error", () => {/* told by "close" */});
    child.stderr.setEncoding("utf8").on("data", (text: string) => this.#errors += text);
    createInterface({ input: child.stdout }).on("line", (line) => this.#answer(line));
    child.once("close", () => {
      running.delete(child);
      this.#ended = true;
      for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#gone());
    });
  }

  static async start(program: string, args: readonly string[]): Promise<PythonProgram> {
    const child = spawn("python3", [program, ...args], { stdio: "pipe" });
    await once(child, "spawn");
    return new PythonProgram(child);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Rejects with what Python raised, or with what it said when it ended. */
  ask(request: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (this.#ended) return Promise.reject(this.#gone());
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.push({ resolve, reject }));
    this.child.stdin.write(`${JSON.stringify(request)}\n`);
    return answer;
  }

  /** Lets it end by itself. */
  end(): Promise<void> {
    return this.#closed(() => this.child.stdin.end());
  }

  /** SIGKILL: whatever it was doing is rolled back. */
  kill(): Promise<void> {
    return this.#closed(() => this.child.kill("SIGKILL"));
  }

  async #closed(end: () => void): Promise<void> {
    if (this.#ended) return;
    const closed = once(this.child, "close");
    end();
    await closed;
  }

  #answer(line: string): void {
    const waiting = this.#waiting.shift();
    const answer: { ok?: unknown; error?: string } = JSON.parse(line);
    if (answer.error === undefined) waiting?.resolve(answer.ok);
    else waiting?.reject(new Error(answer.error));
  }

  #gone(): Error {
    return new Error(`the application ended: ${this.#errors}`);
  }
}
