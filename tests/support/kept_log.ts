/** A log for tests, which keeps what it is told. */
import type { Log, LogFields } from "../../src/runtime.ts";

export interface LogEntry {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly message: string;
  readonly fields: LogFields;
}

export interface KeptLog extends Log {
  readonly entries: readonly LogEntry[];
}

export function keptLog(): KeptLog {
  const entries: LogEntry[] = [];
  const at = (level: LogEntry["level"]) => (message: string, fields: LogFields = {}): void => {
    entries.push({ level, message, fields });
  };
  return { entries, debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}
