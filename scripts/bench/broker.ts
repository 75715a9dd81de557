/** nats-server as a benchmark uses it: JetStream that syncs every message to disk, and its monitoring. */
import { setTimeout as sleep } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { freePort, type NatsServer, startNatsServer } from "../../tests/support/nats.ts";

/** Streams reserve what they may grow to, and 16 of them more than a disk has. */
const STORE_LIMIT = "10TB";
/** A stream that only the harness writes to, and what one row takes */
const ALONE = "alone";
const ALONE_BYTES = 200;

export interface Traffic {
  /** bytes that clients sent to the broker */
  readonly received: number;
  /** bytes that the broker sent to clients */
  readonly sent: number;
}

export interface Broker {
  readonly server: NatsServer;
  traffic(): Promise<Traffic>;
}

/** @param folder where JetStream stores */
export async function startBroker(folder: string): Promise<Broker> {
  const monitoring = await freePort();
  const config = [
    `http: "127.0.0.1:${monitoring}"`,
    `jetstream {\n store_dir: ${JSON.stringify(folder)}\n max_file_store: ${STORE_LIMIT}\n sync_interval: always\n}`,
  ];
  const server = await startNatsServer({ jetstream: false, config: config.join("\n") });
  return { server, traffic: () => traffic(monitoring) };
}

/**
 * How long the broker alone takes to answer a publish to a stream of its own, ms.
 * @param pauseMs between two publishes, on average
 */
export async function answerTimes(url: string, count: number, pauseMs: number): Promise<number[]> {
  const connection = await connect({ servers: url });
  try {
    const manager = await jetstreamManager(connection);
    await manager.streams.add({ name: ALONE, subjects: [ALONE] });
    const stream = manager.jetstream();
    const times: number[] = [];
    while (times.length < count) {
      await sleep(2 * pauseMs * Math.random());
      const before = performance.now();
      await stream.publish(ALONE, new Uint8Array(ALONE_BYTES));
      times.push(performance.now() - before);
    }
    await manager.streams.delete(ALONE);
    return times;
  } finally {
    await connection.close();
  }
}

async function traffic(port: number): Promise<Traffic> {
  const answer: unknown = await (await fetch(`http://127.0.0.1:${port}/varz`)).json();
  if (typeof answer !== "object" || answer === null || !("in_bytes" in answer) || !("out_bytes" in answer)) {
    throw new Error("Cannot read the broker's traffic: /varz has no in_bytes and out_bytes");
  }
  return { received: Number(answer.in_bytes), sent: Number(answer.out_bytes) };
}
