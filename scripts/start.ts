/** `deno task start …`: Marmot from a fresh clone, where the nats-server of the embedded broker may have to be fetched. */
import process from "node:process";
import { parseArguments } from "../src/cli/arguments.ts";
import { readConfig } from "../src/cli/read_config.ts";
import { EXIT } from "../src/errors.ts";
import { ensureNatsServer } from "./nats_server.ts";

async function runsEmbeddedBroker(): Promise<boolean> {
  try {
    const invocation = parseArguments(process.argv.slice(2));
    if (invocation.command !== "run") return false;
    const surroundings = { variables: process.env, directory: process.cwd() };
    const { config } = await readConfig(invocation.flags, surroundings);
    return config.natsUrl.length === 0 && config.natsServer === undefined;
  } catch {
    // What is wrong with it is for the command line to say.
    return false;
  }
}

const say = (line: string) => void process.stderr.write(`${line}\n`);

if (await runsEmbeddedBroker()) {
  await ensureNatsServer(undefined, say).catch((error: unknown) => {
    say(`marmot: ${error instanceof Error ? error.message : error}`);
    process.exit(EXIT.broker);
  });
}
await import("../cli.ts");
