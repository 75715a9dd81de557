/** Errors that callers tell apart. Messages: "Cannot <verb> <thing>: <state>. <What to do.>" */

/** Exit codes of the command line; the README and --help list them. */
export const EXIT = {
  ok: 0,
  /** an unexpected failure */
  failure: 1,
  /** flags, variables or the configuration file are wrong */
  usage: 2,
  /** the database can't be used: missing, not SQLite, corrupt, read-only, locked */
  database: 3,
  /** the broker refuses: credentials, certificate, version, no JetStream; or the embedded one can't start */
  broker: 4,
  /** another Marmot runs on this file, or another process has this node's identity */
  conflict: 5,
  /** refused to protect data: pending changes would be lost, shard counts differ */
  refused: 6,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** An error with a message for the user; the command line prints it without a stack and exits with `exitCode`. */
export class MarmotError extends Error {
  override name = "MarmotError";
  constructor(message: string, readonly exitCode: ExitCode, options?: ErrorOptions) {
    super(message, options);
  }
}

/** The next message is not in the stream any more (retention, purge, or a stream that lost its tail). */
export class StreamGapError extends Error {
  override name = "StreamGapError";
  constructor(readonly stream: string, readonly wanted: number, readonly first: number, readonly lastSequence: number) {
    super(`Cannot read ${stream} at sequence ${wanted}: the stream holds ${first} to ${lastSequence}`);
  }
}

/** The subscription ended for a passing reason (connection, consumer gone): subscribe again. */
export class SubscriptionLostError extends Error {
  override name = "SubscriptionLostError";
}

/** Bytes that are no message of a version this Marmot reads. */
export class MessageFormatError extends Error {
  override name = "MessageFormatError";
}

/** The broker can't be reached, or can't answer just now: the same attempt may succeed later. Nothing was refused. */
export class BrokerUnreachableError extends MarmotError {
  override name = "BrokerUnreachableError";
  constructor(message: string, options?: ErrorOptions) {
    super(message, EXIT.broker, options);
  }
}
