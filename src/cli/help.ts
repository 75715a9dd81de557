/** What `marmot --help` says besides the options. */
import { EXIT } from "../errors.ts";

export const USAGE = "--db-path FILE [options]\n       marmot COMMAND --db-path FILE [options]";

export const DESCRIPTION = "Replicates an SQLite database between nodes that all read and write their own file.\n" +
  "Runs beside the application until it is told to stop (SIGTERM or Ctrl-C).";

const EXIT_MEANINGS: Readonly<Record<keyof typeof EXIT, string>> = {
  ok: "done, or stopped as asked",
  failure: "an unexpected failure, or ended by force",
  usage: "flags, variables or the configuration file are wrong",
  database: "the database can't be used: missing, not SQLite, corrupt, read-only, locked",
  broker: "the broker refuses (credentials, certificate, version, no JetStream), or can't start",
  conflict: "another Marmot runs on this file, or another process has this node's identity",
  refused: "refused to protect data: pending changes would be lost, shard counts differ",
};

const exitCodes = Object.entries(EXIT)
  .map(([name, code]) => `  ${code}  ${EXIT_MEANINGS[name as keyof typeof EXIT]}`)
  .join("\n");

export const PROGRAM_HELP = `
Every option is also a variable (--db-path is MARMOT_DB_PATH) and a key of the TOML file that --config names (db_path).
Flags win over variables, variables over the file. A password is given in a file, a variable or the TOML file, never as
a flag. A switch is taken back with --no-…, such as --no-wal. One dash does as well: -db-path my.db

Examples:
  marmot --db-path my.db                         the first node, with a broker of its own
  marmot --db-path my.db --create                the same, where there is no database yet
  marmot join-command --db-path my.db            how to add a node
  marmot clone --db-path my.db --to other.db     the database of that node
  marmot --db-path my.db --nats-url nats://nats.example:4222 --nats-credentials marmot.creds
  marmot status --db-path my.db                  how it is doing
  marmot --db-path my.db --cleanup               stop replicating: leave no trace in the database

Exit codes:
${exitCodes}
`;

export const COMMAND_HELP = `
All options of \`marmot --help\` are known here too.
`;

export const CLONE_HELP = `${COMMAND_HELP}
Example:
  marmot clone --db-path my.db --to other.db
`;
