/** A `Log` made of LogTape's levels and formatters. */
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
  /** takes whole lines, with their line break, and has written them when it returns */
  readonly write: (line: string) => void;
}

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
