/** A real nats-server for a test: on a free loopback port, with JetStream in a temporary folder. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Server } from "node:net";
import { env } from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { NATS_SERVER_VERSION, requireNatsServer } from "../../src/nats/server_binary.ts";
import { type Program, startProgram, within } from "./process.ts";
import { testedProgram } from "./runtime.ts";
import { tempFolder } from "./tmp.ts";

const READY_TIMEOUT_MS = 20_000;
const READY_POLL_MS = 10;
/** below those that Linux, macOS and Windows give to whoever asks for any */
const PORTS = { first: 15_000, count: 7_500 };
const signs: Server[] = [];

export interface NatsServerOptions {
  /** default: true */
  readonly jetstream?: boolean;
  /** of JetStream; default: a temporary folder, removed after the test */
  readonly storeDir?: string;
  /** default: a free one */
  readonly port?: number;
  /** more lines of its configuration, such as `authorization { user: u, password: p }` or a `tls { … }` block */
  readonly config?: string;
  /** another nats-server program */
  readonly program?: string;
}

export interface NatsServer extends AsyncDisposable {
  /** nats://127.0.0.1:PORT */
  readonly url: string;
  readonly port: number;
  /** 0 while it is stopped */
  readonly pid: number;
  /** what it logged since it was last started */
  readonly log: string;
  /** SIGTERM; the store stays until the test ends */
  stop(): Promise<void>;
  /** SIGKILL, as a crash would */
  kill(): Promise<void>;
  /** SIGSTOP: it holds its connections and answers nothing */
  freeze(): void;
  /** SIGCONT */
  thaw(): void;
  /** on the same port and store, with other lines of configuration if given; resolves when it is ready */
  restart(config?: string): Promise<void>;
}

/** The pinned nats-server: what MARMOT_NATS_SERVER names, or one in PATH or the cache. */
export async function natsServerProgram(): Promise<string> {
  const named = env.MARMOT_NATS_SERVER;
  if (named !== undefined) return named;
  return await requireNatsServer().then((binary) => binary.path, () => {
    throw new Error(
      `These tests need nats-server ${NATS_SERVER_VERSION}: run "deno run --allow-all scripts/nats_server.ts" first`,
    );
  });
}

/** Flags for a Marmot that runs a broker: a compiled one has a nats-server inside. */
export async function natsServerFlags(): Promise<string[]> {
  return testedProgram() === undefined ? ["--nats-server", await natsServerProgram()] : [];
}

/** `await using server = await startNatsServer();` resolves when it accepts connections. */
export async function startNatsServer(options: NatsServerOptions = {}): Promise<NatsServer> {
  const folder = await tempFolder();
  const program = options.program ?? await natsServerProgram();
  const port = options.port ?? await freePort();
  const confFile = folder.file("nats.conf");
  let running: Program | undefined;

  async function start(config: string): Promise<void> {
    await writeFile(confFile, configuration(port, options, folder.file("jetstream"), config));
    await rm(folder.file("nats.pid"), { force: true });
    const started = await startProgram([program, "-c", confFile, "-P", folder.file("nats.pid")]);
    running = started;
    await Promise.race([
      ready(port, folder.file("nats.pid"), started),
      started.exited.then(() => Promise.reject(new Error(`nats-server ended at start:\n${started.output}`))),
    ]);
  }

  async function end(how: "stop" | "kill"): Promise<void> {
    const ending = running;
    running = undefined;
    if (ending === undefined) return;
    ending.signal("SIGCONT");
    await ending[how]();
  }

  let config = options.config ?? "";
  await start(config);
  return {
    url: `nats://127.0.0.1:${port}`,
    port,
    get pid() {
      return running?.pid ?? 0;
    },
    get log() {
      return running?.output ?? "";
    },
    stop: () => end("stop"),
    kill: () => end("kill"),
    freeze: () => running?.freeze(),
    thaw: () => running?.signal("SIGCONT"),
    restart: async (other = config) => {
      await end("stop");
      config = other;
      await start(config);
    },
    [Symbol.asyncDispose]: async () => {
      await end("kill");
      await folder[Symbol.asyncDispose]();
    },
  };
}

function configuration(port: number, options: NatsServerOptions, store: string, more: string): string {
  const lines = [`listen: "127.0.0.1:${port}"`];
  if (options.jetstream ?? true) lines.push(`jetstream {\n store_dir: ${JSON.stringify(options.storeDir ?? store)}\n}`);
  return `${[...lines, more].join("\n")}\n`;
}

/** Ready means that it greets a client, after the server itself (not one before it on that port) wrote its pid. */
async function ready(port: number, pidFile: string, server: Program): Promise<void> {
  const started = Date.now();
  while (Date.now() - started < READY_TIMEOUT_MS) {
    const pid = await readFile(pidFile, "utf8").catch(() => "");
    if (pid.trim() === String(server.pid) && await greets(port)) return;
    await sleep(READY_POLL_MS);
  }
  throw new Error(`nats-server was not ready in time:\n${server.output}`);
}

async function greets(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  const answer = new Promise<boolean>((resolve) => {
    socket.once("data", () => resolve(true));
    socket.once("error", () => resolve(false));
    socket.once("close", () => resolve(false));
  });
  try {
    return await within(READY_TIMEOUT_MS, answer, () => `port ${port} accepts connections but sends nothing`);
  } finally {
    socket.destroy();
  }
}

/**
 * A loopback port that nobody listens on, and that stays this test's while a server is away: a port above is listened on
 * until the tests of this file end, as a sign for those that run meanwhile.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < PORTS.count; tries++) {
    const port = PORTS.first + Math.floor(Math.random() * PORTS.count);
    const sign = await listen(port + PORTS.count);
    if (sign === undefined) continue;
    signs.push(sign.unref());
    const server = await listen(port);
    if (server === undefined) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
  throw new Error("no port");
}

/** @returns undefined if another one listens there */
async function listen(port: number): Promise<Server | undefined> {
  const server = createServer();
  const listens = await new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => resolve(true));
  });
  return listens ? server : undefined;
}
