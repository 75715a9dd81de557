/** Runs an embedded broker until it is ended: `embedded_program.ts FOLDER NATS_SERVER`, prints its process id. */
import process from "node:process";
import { startServer } from "../../src/nats/server.ts";
import { WatchedLog } from "./embedded.ts";

const [, , folder = "", program = ""] = process.argv;
const server = await startServer({ folder, program }, new WatchedLog());
process.stdout.write(`broker ${server.pid}\n`);
setInterval(() => {}, 60_000);
