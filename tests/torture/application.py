"""An application of the torture test, as a process of its own. The first argument says what it does, the second how:

write  random transactions until it is killed, each told to a journal before and after its COMMIT
read   the laws that hold at every moment, checked in read transactions until it is killed
tell   prints, as JSON, what each key of the workload holds
"""

import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import time

BUSY_TIMEOUT_S = 60
TOLD_CHARS = 60
LARGE_BYTES = 150_000
MANY_ROWS = 600
REGISTERS = 20
SEATS = 12
PLACES = 8
REPORT_EVERY = 20
FULL = ("database or disk is full", "disk I/O error", "unable to open database file")

"""Table: columns of the key. What the other columns hold is the value."""
KEYS = {
    "list": ("id",),
    "task": ("id",),
    "counter": ("node",),
    "register": ("k",),
    "pulse": ("node", "place"),
    "own_bank": ("node", "account"),
    "shared_bank": ("account",),
    "seat": ("id",),
}


def told(values):
    text = repr(tuple(values))
    return text if len(text) <= TOLD_CHARS else "sha256 " + hashlib.sha256(text.encode()).hexdigest()[:24]


def key_of(table, *key):
    return "/".join([table, *map(str, key)])


def connect(path):
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)


def report(**fields):
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


class Journal:
    """Lines that outlive the process: what it is about to commit, and what was committed."""

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, **line):
        data = (json.dumps(line) + "\n").encode()
        while data:
            data = data[os.write(self.file, data) :]

    def keep(self):
        os.fsync(self.file)


class Writer:
    def __init__(self, options):
        self.options = options
        self.name = options["name"]
        self.random = random.Random(f"{options['seed']} {self.name} {options['life']}")
        self.journal = Journal(options["journal"])
        self.db = connect(options["path"])
        self.count = 0
        self.commits = 0
        self.writes = {}

    def run(self):
        report(started=True)
        while True:
            self.count += 1
            if self.random.random() < 0.02:
                self.through_shell()
            else:
                self.transaction()
            if self.random.random() < 0.8:
                time.sleep(self.random.random() * self.options["pauseS"])

    @property
    def tx(self):
        return f"{self.name}-{self.options['life']}-{self.count}"

    @property
    def number(self):
        """Grows over all lives of this application."""
        return self.options["life"] * 10_000_000 + self.count

    def transaction(self):
        self.writes = {}
        steps = [self.lists, self.tasks, self.counters, self.registers, self.pulses, self.shared_bank, self.seats]
        if self.options["bank"]:
            steps.append(self.own_bank)
        self.journal.tell(begin=self.tx)
        stage = "before"
        try:
            self.db.execute("BEGIN IMMEDIATE")
            for step in self.random.sample(steps, self.random.choice([1, 1, 2, 3, 5])):
                step()
                if self.random.random() < 0.1:
                    time.sleep(self.random.random() * 0.01)
            if self.random.random() < 0.05:
                self.db.execute("ROLLBACK")
                self.journal.tell(no=self.tx, sure=True)
                return
            self.journal.tell(tx=self.tx, do=self.writes)
            stage = "commit"
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            self.failed(error, sure=stage == "before")
            return
        self.committed()

    def committed(self):
        self.journal.tell(ok=self.tx)
        self.journal.keep()
        self.commits += 1
        if self.commits % REPORT_EVERY == 0:
            report(commits=self.commits)

    def failed(self, error, sure):
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self.journal.tell(no=self.tx, sure=sure, error=str(error))
        if any(text in str(error) for text in FULL):
            report(full=str(error))
            time.sleep(0.1)
        else:
            report(violation=f"a write failed: {error}")

    def through_shell(self):
        """The same by the sqlite3 shell, a process of its own."""
        row = f"{self.tx}-shell", self.name, self.number, "shell's"
        self.writes = {key_of("list", row[0]): told(row[1:])}
        register = self.random.randrange(REGISTERS)
        self.writes[key_of("register", register)] = told([self.tx])
        self.journal.tell(begin=self.tx)
        self.journal.tell(tx=self.tx, do=self.writes)
        sql = f"""BEGIN IMMEDIATE;
            INSERT INTO list VALUES ('{row[0]}', '{row[1]}', {row[2]}, 'shell''s');
            INSERT OR REPLACE INTO register VALUES ({register}, '{self.tx}');
            COMMIT; SELECT 'committed';"""
        command = ["sqlite3", "-bail", "-cmd", f".timeout {BUSY_TIMEOUT_S * 1000}", self.options["path"]]
        done = subprocess.run(command, input=sql, capture_output=True, text=True)
        if "committed" in done.stdout:
            self.committed()
        else:
            self.failed(sqlite3.Error(done.stderr), sure=False)

    def wrote(self, table, key, values):
        self.writes[key_of(table, *key)] = None if values is None else told(values)

    def payload(self):
        kind = self.random.randrange(7)
        if kind == 0 and self.random.random() < 0.03:
            return self.random.randbytes(LARGE_BYTES)
        choices = [None, self.random.getrandbits(63), self.random.random(), -0.0, "é\0x", self.random.randbytes(40)]
        return choices[kind - 1] if kind > 0 else "text " * self.random.randrange(40)

    def lists(self):
        rows = MANY_ROWS if self.random.random() < 0.004 else self.random.choice([1, 1, 2, 5])
        for i in range(rows):
            row = f"{self.tx}-{i}", self.name, self.number, self.payload()
            self.db.execute("INSERT INTO list VALUES (?, ?, ?, ?)", row)
            self.wrote("list", row[:1], row[1:])

    def tasks(self):
        """Own rows that come, change and go."""
        for i in range(self.random.choice([1, 3])):
            row = f"{self.tx}-{i}", "new"
            self.db.execute("INSERT INTO task VALUES (?, ?)", row)
            self.wrote("task", row[:1], row[1:])
        sql = "SELECT id FROM task WHERE id >= ? AND id < ? ORDER BY random() LIMIT 3"
        for place, (key,) in enumerate(self.db.execute(sql, (f"{self.name}-", f"{self.name}.")).fetchall()):
            if place == 0:
                self.db.execute("UPDATE task SET state = ? WHERE id = ?", (self.tx, key))
                self.wrote("task", (key,), (self.tx,))
            else:
                self.db.execute("DELETE FROM task WHERE id = ?", (key,))
                self.wrote("task", (key,), None)

    def counters(self):
        sql = "UPDATE counter SET n = ?, increments = increments + 1 WHERE node = ? RETURNING n, increments"
        self.wrote("counter", (self.name,), self.db.execute(sql, (self.number, self.name)).fetchall()[0])

    def registers(self):
        """Keys that all nodes write."""
        for _ in range(self.random.choice([1, 3])):
            register = self.random.randrange(REGISTERS)
            if self.random.random() < 0.15:
                self.db.execute("DELETE FROM register WHERE k = ?", (register,))
                self.wrote("register", (register,), None)
            else:
                self.db.execute("INSERT OR REPLACE INTO register VALUES (?, ?)", (register, self.tx))
                self.wrote("register", (register,), (self.tx,))

    def pulses(self):
        """Rows that have to be seen equal everywhere."""
        sql = "UPDATE pulse SET n = ? WHERE node = ? RETURNING place"
        for (place,) in self.db.execute(sql, (self.number, self.name)).fetchall():
            self.wrote("pulse", (self.name, place), (self.number,))

    def own_bank(self):
        """A transfer between two accounts that only this node writes."""
        sql = "SELECT account, balance FROM own_bank WHERE node = ?"
        balances = dict(self.db.execute(sql, (self.name,)).fetchall())
        source, target = self.random.sample(sorted(balances), 2)
        amount = self.random.randint(1, 50)
        sql = "UPDATE own_bank SET balance = balance + ? WHERE node = ? AND account = ?"
        for account, change in ((source, -amount), (target, amount)):
            self.db.execute(sql, (change, self.name, account))
            self.wrote("own_bank", (self.name, account), (balances[account] + change,))

    def shared_bank(self):
        """All accounts anew, by any node: whichever transaction is the last, the sum holds."""
        accounts = [account for (account,) in self.db.execute("SELECT account FROM shared_bank ORDER BY 1").fetchall()]
        balances = [self.random.randint(-500, 500) for _ in accounts]
        balances[0] += self.options["sharedSum"] - sum(balances)
        for account, balance in zip(accounts, balances):
            self.db.execute("UPDATE shared_bank SET balance = ? WHERE account = ?", (balance, account))
            self.wrote("shared_bank", (account,), (balance,))

    def seats(self):
        """Rows that displace each other by a UNIQUE value."""
        seat, place = self.random.randrange(SEATS), self.random.choice([None, *range(PLACES)])
        kind = self.random.randrange(4)
        if kind == 0:
            self.db.execute("DELETE FROM seat WHERE id = ?", (seat,))
            self.wrote("seat", (seat,), None)
        elif kind == 1:
            sql = "UPDATE OR REPLACE seat SET place = ?, holder = ? WHERE id = ?"
            if self.db.execute(sql, (place, self.tx, seat)).rowcount > 0:
                self.wrote("seat", (seat,), (place, self.tx))
        else:
            self.db.execute("INSERT OR REPLACE INTO seat VALUES (?, ?, ?)", (seat, place, self.tx))
            self.wrote("seat", (seat,), (place, self.tx))


class Reader:
    """Each law holds in every read transaction, on every node, whatever happens."""

    def __init__(self, options):
        self.options = options
        self.seen = {}
        self.reads = 0

    def run(self):
        db = connect(self.options["path"])
        report(started=True)
        while True:
            try:
                self.check(db)
            except sqlite3.Error as error:
                if not any(text in str(error) for text in FULL):
                    raise
                report(full=str(error))
            self.reads += 1
            if self.reads % REPORT_EVERY == 0:
                report(reads=self.reads)
            time.sleep(self.options["pauseS"])
            if self.reads % 200 == 0:
                db.close()
                db = connect(self.options["path"])

    def check(self, db):
        db.execute("BEGIN")
        try:
            own = db.execute("SELECT node, sum(balance) FROM own_bank GROUP BY node").fetchall()
            shared = db.execute("SELECT sum(balance) FROM shared_bank").fetchall()
            pulses = db.execute("SELECT node, min(n), max(n), count(*) FROM pulse GROUP BY node").fetchall()
            counters = db.execute("SELECT node, n FROM counter").fetchall()
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
        for node, balance in own:
            self.same(f"own bank of {node}", balance, self.options["ownSum"])
        self.same("shared bank", shared[0][0], self.options["sharedSum"])
        for node, low, high, count in pulses:
            self.same(f"pulses of {node}", (low, count), (high, self.options["pulses"]))
        for what, node, n in [("pulse", row[0], row[1]) for row in pulses] + [("counter", *row) for row in counters]:
            before = self.seen.get((what, node), n)
            if n < before:
                report(violation=f"the {what} of {node} went from {before} to {n}")
            self.seen[what, node] = n

    def same(self, what, found, wanted):
        if found != wanted:
            report(violation=f"{what}: {found} instead of {wanted}")


def tell(path):
    db = connect(path)
    state = {}
    db.execute("BEGIN")
    for table, key in KEYS.items():
        cursor = db.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        places = [names.index(name) for name in key]
        for row in cursor:
            values = [value for place, value in enumerate(row) if place not in places]
            state[key_of(table, *(row[place] for place in places))] = told(values)
    problems = [text for (text,) in db.execute("PRAGMA integrity_check").fetchall() if text != "ok"]
    print(json.dumps({"state": state, "problems": problems}))


def main():
    # A group of its own, so that a shell which it runs dies with it.
    os.setsid()
    mode, options = sys.argv[1], json.loads(sys.argv[2])
    if mode == "write":
        Writer(options).run()
    elif mode == "read":
        Reader(options).run()
    else:
        tell(options["path"])


main()
