/** The tables of the workload, and what they hold before anything begins. */

const ACCOUNTS = 4;
const BALANCE = 1_000;
export const OWN_SUM = ACCOUNTS * BALANCE;
const SHARED_ACCOUNTS = 6;
export const SHARED_SUM = SHARED_ACCOUNTS * BALANCE;
/** rows of a node that are always written together */
export const PULSES = 5;

/** Tables whose transactions must be seen whole have a key that ignores case: however many shards, each is on one. */
const TABLES = `
  PRAGMA journal_mode = WAL;
  CREATE TABLE list(id TEXT PRIMARY KEY, node TEXT NOT NULL, place INTEGER NOT NULL, payload);
  CREATE TABLE task(id TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE counter(node TEXT PRIMARY KEY, n INTEGER NOT NULL, increments INTEGER NOT NULL);
  CREATE TABLE register(k INTEGER PRIMARY KEY, v TEXT);
  CREATE TABLE pulse(node TEXT COLLATE NOCASE, place INTEGER, n INTEGER, PRIMARY KEY (node, place));
  CREATE TABLE own_bank(node TEXT COLLATE NOCASE, account INTEGER, balance INTEGER NOT NULL, PRIMARY KEY (node, account));
  CREATE TABLE shared_bank(account TEXT COLLATE NOCASE PRIMARY KEY, balance INTEGER NOT NULL);
  CREATE TABLE seat(id INTEGER PRIMARY KEY, place INTEGER UNIQUE, holder TEXT);`;

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i + 1);
}

/** SQL that makes the database of each node. */
export function prepareSql(nodes: readonly string[]): string {
  const rows = nodes.flatMap((node) => [
    `INSERT INTO counter VALUES ('${node}', 0, 0);`,
    ...numbers(PULSES).map((place) => `INSERT INTO pulse VALUES ('${node}', ${place}, 0);`),
    ...numbers(ACCOUNTS).map((account) => `INSERT INTO own_bank VALUES ('${node}', ${account}, ${BALANCE});`),
  ]);
  const shared = numbers(SHARED_ACCOUNTS).map((account) => `INSERT INTO shared_bank VALUES (${account}, ${BALANCE});`);
  return `${TABLES}\nBEGIN;\n${[...rows, ...shared].join("\n")}\nCOMMIT;`;
}
