/** Reads what a nats-server writes into its log, to tell it on and to notice what it does not recover from. */
import { open, stat } from "node:fs/promises";

/** a burst beyond this is only of interest at its end */
const READ_LIMIT_BYTES = 256 * 1024;

export type ServerLevel = "info" | "warn" | "error";

export interface ServerLine {
  readonly level: ServerLevel;
  readonly text: string;
}

const LEVELS: Readonly<Record<string, ServerLevel>> = { WRN: "warn", ERR: "error", FTL: "error" };

/** Follows a log file that may be cut and started anew. */
export class ServerLogTail {
  #position: number;
  #rest = "";

  private constructor(private readonly file: string, position: number) {
    this.#position = position;
  }

  /** @returns one that reads what is written from now on */
  static async atEnd(file: string): Promise<ServerLogTail> {
    return new ServerLogTail(file, await sizeOf(file));
  }

  /** Whole lines written since the last call. */
  async read(): Promise<ServerLine[]> {
    const size = await sizeOf(this.file);
    if (size === this.#position) return [];
    if (size < this.#position) this.#position = 0;
    const start = Math.max(this.#position, size - READ_LIMIT_BYTES);
    const bytes = new Uint8Array(size - start);
    const handle = await open(this.file, "r");
    try {
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, start);
      this.#position = start + bytesRead;
      const lines = (this.#rest + new TextDecoder().decode(bytes.subarray(0, bytesRead))).split("\n");
      this.#rest = lines.pop() ?? "";
      return lines.map(parseLine).filter((line) => line !== undefined);
    } finally {
      await handle.close();
    }
  }
}

async function sizeOf(file: string): Promise<number> {
  return await stat(file).then((found) => found.size, () => 0);
}

/** `[123] 2026/01/31 12:00:00.000000 [ERR] text` */
function parseLine(line: string): ServerLine | undefined {
  const [, mark = "", text = ""] = /^\[\d+\] [\d/]+ [\d:.]+ \[(\w+)\] (.*)$/.exec(line) ?? [];
  return text === "" ? undefined : { level: LEVELS[mark] ?? "info", text };
}

/** JetStream stops storing at a failed write, and goes on only after a restart. */
export function isStorageFailure(line: ServerLine): boolean {
  return line.level === "error" &&
    /critical write error|out of (file )?(resources|space)|no space left/i.test(line.text);
}

/** Why a server ended, in the words it used last. */
export function lastError(lines: readonly ServerLine[], output: string): string {
  const error = lines.findLast((line) => line.level === "error")?.text;
  // A shell says how its child was ended, which is known already.
  const printed = output.split("\n").map((line) => line.trim()).find((line) => !/^(Killed|Terminated)?$/.test(line)) ??
    "";
  return error ?? printed.replace(/^nats-server: /, "");
}

/** A server may repeat itself for hours; each thing it says is worth telling once a while. */
export class Repetitions {
  readonly #told = new Map<string, number>();

  constructor(private readonly quietMs: number) {}

  /** Whether `text`, numbers apart, was not told lately; counts as told then. */
  isNew(text: string, now: number): boolean {
    const key = text.replace(/\d+/g, "#");
    const last = this.#told.get(key);
    if (last !== undefined && now - last < this.quietMs) return false;
    for (const [old, time] of this.#told) if (now - time >= this.quietMs) this.#told.delete(old);
    this.#told.set(key, now);
    return true;
  }
}
