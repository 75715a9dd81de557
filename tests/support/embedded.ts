/** The embedded broker in a test: started, spoken to as its own user, and gone after the test. */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { jetstream, type JetStreamClient, type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection, nkeyAuthenticator } from "@nats-io/transport-node";
import { type EmbeddedServer, type ServerOptions, startServer } from "../../src/nats/server.ts";
import type { Log, LogFields } from "../../src/runtime.ts";
import { freePort, natsServerProgram } from "./nats.ts";
import { within } from "./process.ts";

const TOLD_TIMEOUT_MS = 20_000;
const API_TIMEOUT_MS = 2_000;
const EVENTUALLY_TIMEOUT_MS = 30_000;
const POLL_MS = 100;

/** A log that can be waited for. */
export class WatchedLog implements Log {
  readonly lines: string[] = [];
  #listeners = new Set<() => void>();

  debug = (message: string, fields?: LogFields) => this.#add("debug", message, fields);
  info = (message: string, fields?: LogFields) => this.#add("info", message, fields);
  warn = (message: string, fields?: LogFields) => this.#add("warn", message, fields);
  error = (message: string, fields?: LogFields) => this.#add("error", message, fields);

  /** Resolves with the first line, of those from `from` on, that matches: `level message key=value …` */
  async told(pattern: RegExp, from = 0): Promise<string> {
    const line = new Promise<string>((resolve) => {
      const look = () => {
        const found = this.lines.slice(from).find((line) => pattern.test(line));
        if (found === undefined) return;
        this.#listeners.delete(look);
        resolve(found);
      };
      this.#listeners.add(look);
      look();
    });
    return await within(TOLD_TIMEOUT_MS, line, () => `the log has no ${pattern}:\n${this.lines.join("\n")}`);
  }

  #add(level: string, message: string, fields: LogFields = {}): void {
    const shown = Object.entries(fields).map(([key, value]) => `${key}=${value}`);
    this.lines.push([level, message, ...shown].join(" "));
    for (const listener of [...this.#listeners]) listener();
  }
}

export interface TestServer extends AsyncDisposable {
  readonly server: EmbeddedServer;
  readonly log: WatchedLog;
}

/** `await using { … } = await startEmbedded({ folder: folder.file("my.db-marmot") });` */
export async function startEmbedded(options: ServerOptions): Promise<TestServer> {
  const log = new WatchedLog();
  const server = await startServer({ program: await natsServerProgram(), ...options }, log);
  return { server, log, [Symbol.asyncDispose]: () => server.stop() };
}

/** An address for a broker that has to come back to it: another test may take the default one meanwhile. */
export async function ownAddress(): Promise<{ host: string; port: number }> {
  return { host: "127.0.0.1", port: await freePort() };
}

/** Tries, until whoever has to be there (a reconnected client, an elected leader) is. */
export async function eventually<T>(attempt: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + EVENTUALLY_TIMEOUT_MS;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    await sleep(POLL_MS);
  }
}

export interface TestClient extends AsyncDisposable {
  readonly connection: NatsConnection;
  readonly manager: JetStreamManager;
  readonly jetstream: JetStreamClient;
}

/** As the user whose seed is in the credentials file. */
export async function connectAs(url: string, credentialsFile: string): Promise<TestClient> {
  const seed = new TextEncoder().encode(readFileSync(credentialsFile, "utf8").trim());
  const connection = await connect({
    servers: url,
    authenticator: nkeyAuthenticator(seed),
    maxReconnectAttempts: -1,
    reconnectTimeWait: 50,
  });
  return {
    connection,
    manager: await jetstreamManager(connection, { checkAPI: false, timeout: API_TIMEOUT_MS }),
    jetstream: jetstream(connection, { timeout: API_TIMEOUT_MS }),
    [Symbol.asyncDispose]: () => connection.close(),
  };
}
