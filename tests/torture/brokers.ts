/** Three real nats-servers that form a cluster, with a link between each two of them and to each node. */
import { setTimeout as sleep } from "node:timers/promises";
import { freePort, type NatsServer, startNatsServer } from "../support/nats.ts";
import { within } from "../support/process.ts";
import { Link } from "./link.ts";

export const BROKERS = 3;
/** so small that a row of the workload travels in parts */
const MAX_PAYLOAD = 65_536;
const CLUSTER_TIMEOUT_MS = 40_000;
const POLL_MS = 50;

interface Place {
  readonly clientPort: number;
  readonly routePort: number;
}

export class Brokers implements AsyncDisposable {
  /** what earlier runs of each server printed */
  readonly logs: string[] = Array.from({ length: BROKERS }, () => "");

  private constructor(
    readonly servers: readonly NatsServer[],
    /** between servers */
    readonly routes: readonly Link[],
  ) {}

  static async start(): Promise<Brokers> {
    const places: Place[] = [];
    for (let i = 0; i < BROKERS; i++) places.push({ clientPort: await freePort(), routePort: await freePort() });
    const { links, ports } = await linkRoutes(places);
    const servers = await Promise.all(places.map(({ clientPort }, i) =>
      startNatsServer({
        port: clientPort,
        config: configuration(i, places[i]!, ports[i]!),
      })
    ));
    const brokers = new Brokers(servers, links);
    const elected = async () => {
      while (!servers.some(({ log }) => log.includes("new metadata leader"))) await sleep(POLL_MS);
    };
    await within(
      CLUSTER_TIMEOUT_MS,
      elected(),
      () => `no metadata leader:\n${servers.map(({ log }) => log).join("\n")}`,
    );
    return brokers;
  }

  /** Kills one of them, keeping what it logged. */
  async kill(place: number): Promise<void> {
    const server = this.servers[place]!;
    this.logs[place] += server.log;
    await server.kill();
  }

  log(place: number): string {
    return this.logs[place]! + this.servers[place]!.log;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.servers.map((server) => server[Symbol.asyncDispose]()));
    await Promise.all(this.routes.map((link) => link[Symbol.asyncDispose]()));
  }
}

/** For each server the ports at which it finds the others. */
async function linkRoutes(places: readonly Place[]): Promise<{ links: Link[]; ports: number[][] }> {
  const links: Link[] = [];
  const ports: number[][] = places.map(() => []);
  for (let i = 0; i < places.length; i++) {
    for (let j = i + 1; j < places.length; j++) {
      const link = new Link(`n${i + 1}~n${j + 1}`);
      links.push(link);
      ports[i]!.push(await link.open(places[j]!.routePort, "there"));
      ports[j]!.push(await link.open(places[i]!.routePort, "back"));
    }
  }
  return { links, ports };
}

/** No address is told to anybody else: all connections go through the links. Port 9 is nobody's. */
function configuration(place: number, { routePort }: Place, others: readonly number[]): string {
  return `server_name: n${place + 1}
max_payload: ${MAX_PAYLOAD}
cluster {
  name: torture
  listen: "127.0.0.1:${routePort}"
  advertise: "127.0.0.1:9"
  no_advertise: true
  routes: [${others.map((port) => `"nats://127.0.0.1:${port}"`).join(", ")}]
}`;
}
