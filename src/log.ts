/** A `Log` made of LogTape's formatters, and a sink that has written a line when the call returns. */
import { writeSync } from "node:fs";
import {
  compareLogLevel,
  type FormattedValues,
  getAnsiColorFormatter,
  getJsonLinesFormatter,
  getTextFormatter,
  type LogLevel as TapeLevel,
  type TextFormatter,
} from "@logtape/logtape";
import type { Log, LogFields } from "./runtime.ts";

export type LogFormat = "text" | "json";
export type LogLevel = "debug" | "info" | "warn" | "error";

export interface LogOptions {
  readonly format: LogFormat;
  /** this level, and what is graver */
  readonly level: LogLevel;
  /** text with colours, for a terminal */
  readonly colors: boolean;
  /** takes whole lines, with their line break */
  readonly write: (line: string) => void;
}

const STDERR = 2;
/** How often a full pipe is tried again before its reader is taken for dead; each try waits PIPE_WAIT_MS. */
const PIPE_TRIES = 200;
const PIPE_WAIT_MS = 5;

const TAPE_LEVELS = { debug: "debug", info: "info", warn: "warning", error: "error" } as const;
const SHOWN_LEVELS: Partial<Record<TapeLevel, string>> = {
  debug: "DEBUG",
  info: "INFO ",
  warning: "WARN ",
  error: "ERROR",
};

/** Each log stands alone: LogTape's global configuration is not touched. */
export function createLog(options: LogOptions): Log {
  const format = formatter(options);
  const lowest = TAPE_LEVELS[options.level];
  const logger = (level: TapeLevel) => (message: string, properties: LogFields = {}) => {
    if (compareLogLevel(level, lowest) < 0) return;
    const given = Object.fromEntries(Object.entries(properties).filter(([, value]) => value !== undefined));
    options.write(
      format({
        category: ["marmot"],
        level,
        message: [message],
        rawMessage: message,
        timestamp: Date.now(),
        properties: given,
      }),
    );
  };
  return { debug: logger("debug"), info: logger("info"), warn: logger("warning"), error: logger("error") };
}

function formatter({ format, colors }: LogOptions): TextFormatter {
  if (format === "json") return getJsonLinesFormatter({ properties: "flatten" });
  const shape = {
    timestamp: "rfc3339",
    level: (level: TapeLevel) => SHOWN_LEVELS[level] ?? level,
    format: ({ timestamp, level, message, record }: FormattedValues) =>
      [timestamp, level, message, ...fields(record.properties)].join(" "),
  } as const;
  return colors ? getAnsiColorFormatter(shape) : getTextFormatter(shape);
}

function fields(properties: Record<string, unknown>): string[] {
  return Object.entries(properties).map(([key, value]) => `${key}=${fieldValue(String(value))}`);
}

/** Quoted when a reader, or a program that splits at blanks, could take it for something else. */
function fieldValue(text: string): string {
  return /^[\x21\x23-\x3c\x3e-\x7e\u00a1-\uffff]+$/u.test(text) ? text : JSON.stringify(text);
}

/** Writes to stderr before it returns, so that nothing is lost when the process ends. */
export function writeStderr(line: string): void {
  let rest: Uint8Array = new TextEncoder().encode(line);
  for (let tries = 0; rest.length > 0 && tries < PIPE_TRIES; tries++) {
    try {
      rest = rest.subarray(writeSync(STDERR, rest));
      tries = 0;
    } catch (error) {
      // A log that nobody reads any more must not end the replication.
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PIPE_WAIT_MS);
    }
  }
}
