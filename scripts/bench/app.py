"""An application of the benchmark: a process of its own that uses Python's sqlite3.

Reads requests as JSON lines from stdin and answers each with one line, in order. All times are of CLOCK_MONOTONIC, in
nanoseconds: the same clock in every process of the machine, so times of two applications can be subtracted.
"""

import contextlib
import ctypes
import gc
import itertools
import json
import os
import random
import sqlite3
import sys
import time

BUSY_TIMEOUT_S = 60
# What SQLite's own busy handler sleeps between tries (sqliteDefaultBusyCallback); the last one again and again.
BUSY_DELAYS_S = [ms / 1000 for ms in (1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100)]
PR_SET_TIMERSLACK = 29
PR_TIMERSLACK_NS = 1
SYNC_BYTES = 4096
FILL_PER_TRANSACTION = 10_000
WORDS = "the quick brown fox jumps over a lazy dog and runs through green fields under wide blue skies".split()
TEXT_CHARS = 1_000_000
NOISE_BYTES = 16_000_000
# Spreads neighbours far apart, so that two rows of a batch share nothing.
STRIDE = 2_654_435_761

clock = time.monotonic_ns


class Source:
    """Texts that compress like texts, and blobs that don't compress at all; no two rows near each other are alike."""

    def __init__(self):
        random_source = random.Random(5)
        words = random_source.choices(WORDS, k=TEXT_CHARS // 4)
        self.text = " ".join(f"{word}{i % 89}" for i, word in enumerate(words))
        self.noise = random_source.randbytes(NOISE_BYTES)

    def values(self, i, size):
        half = size // 2
        at = i * STRIDE
        in_text = at % (len(self.text) - half)
        in_noise = at % (NOISE_BYTES - half)
        return self.text[in_text : in_text + half], self.noise[in_noise : in_noise + size - half]


def quantile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def summary(times):
    ordered = sorted(times)
    middle = {"p50": quantile(ordered, 0.5), "p90": quantile(ordered, 0.9), "p99": quantile(ordered, 0.99)}
    return {**middle, "max": ordered[-1], "count": len(ordered)}


class App:
    def __init__(self, path):
        self.db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        self.db.execute("PRAGMA synchronous = NORMAL")
        self.source = Source()
        # Sleeps of some microseconds, for processes that watch.
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, PR_TIMERSLACK_NS)

    @contextlib.contextmanager
    def waiting_itself(self):
        """Locks are waited for here, as SQLite would do it, so that the wait can be measured."""
        self.db.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            self.db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")

    def locking(self, sql, values=()):
        """Runs a statement that takes the write lock. Answers how long another connection kept it from that."""
        before = waited = 0
        for tries in itertools.count():
            try:
                self.db.execute(sql, values)
                return waited
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or waited > BUSY_TIMEOUT_S * 1e9:
                    raise
            before = before or clock()
            time.sleep(BUSY_DELAYS_S[min(tries, len(BUSY_DELAYS_S) - 1)])
            waited = clock() - before

    def facts(self, _request):
        return {"sqlite": sqlite3.sqlite_version, "python": sys.version.split()[0]}

    def now(self, _request):
        return clock()

    def sync(self, request):
        """How long this disk takes to make a small append durable, as a broker does for every message."""
        times = []
        with open(request["path"], "wb", buffering=0) as file:
            for _ in range(request["count"]):
                file.write(bytes(SYNC_BYTES))
                before = clock()
                os.fsync(file.fileno())
                times.append(clock() - before)
        return summary(times)

    def script(self, request):
        self.db.executescript(request["sql"])

    def rows(self, request):
        return self.db.execute(request["sql"]).fetchall()

    def work(self, request):
        """The statement and the rows of one kind of write."""
        kind, first, count, size = request["kind"], request["first"], request["count"], request["size"]
        table = request["table"]
        values = self.source.values
        turns = range(first, first + count)
        if kind == "insert":
            return f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", [
                (i, i * 7919, *values(i, size), i / 8) for i in turns
            ]
        ids = list(turns)
        if request["among"] is not None:
            ids = random.Random(first).choices(range(first, first + request["among"]), k=count)
        elif request["shuffled"]:
            random.Random(first).shuffle(ids)
        if kind == "delete":
            return f"DELETE FROM {table} WHERE id = ?", [(i,) for i in ids]
        # In each turn another number, and the text of another row: SQLite writes nothing where nothing differs.
        turn = request["turn"]
        return f"UPDATE {table} SET number = ?, name = ? WHERE id = ?", [
            (i * 7919 + turn, values(i + turn, size)[0], i) for i in ids
        ]

    def fill(self, request):
        """Inserts rows as fast as it can, unmeasured."""
        first, count = request["first"], request["count"]
        for start in range(first, first + count, FILL_PER_TRANSACTION):
            part = min(FILL_PER_TRANSACTION, first + count - start)
            sql, rows = self.work({**request, "kind": "insert", "first": start, "count": part})
            self.db.execute("BEGIN IMMEDIATE")
            self.db.executemany(sql, rows)
            self.db.execute("COMMIT")

    def write(self, request):
        """Writes at full speed, in transactions of `per` rows; the last one also writes the mark, if one is given."""
        sql, rows = self.work(request)
        per, mark, db = request["per"], request["mark"], self.db
        times, waits = [], []
        started = ended = clock()
        whole = len(rows) - per
        with self.waiting_itself():
            for start in range(0, len(rows), per):
                before = clock()
                if per == 1 and start < whole:
                    waits.append(self.locking(sql, rows[start]))
                else:
                    waits.append(self.locking("BEGIN IMMEDIATE"))
                    db.executemany(sql, rows[start : start + per])
                    if start >= whole and mark is not None:
                        db.execute("INSERT INTO mark VALUES (?, ?)", (mark, before))
                    db.execute("COMMIT")
                ended = clock()
                times.append(ended - before)
        return {"started": started, "ended": ended, "commits": summary(times), "waits": summary(waits)}

    def paced(self, request):
        """Writes one row a transaction, with pauses of random length, for `count` rows or so many seconds."""
        sql, rows = self.work(request)
        pauses = random.Random(request["first"])
        times, waits, ends = [], [], []
        limit = clock() + int(request["seconds"] * 1e9)
        with self.waiting_itself():
            for row in rows:
                time.sleep(pauses.expovariate(1 / request["pause"]))
                before = clock()
                if before > limit:
                    break
                waits.append(self.locking(sql, row))
                ends.append(clock())
                times.append(ends[-1] - before)
        return {"commits": summary(times), "waits": summary(waits), "first": request["first"], "ends": ends}

    def upgrading(self, request):
        """Deferred transactions that read and then write, as frameworks make them. How many were refused as busy?"""
        db, pauses, busy, done = self.db, random.Random(1), 0, 0
        sql, rows = self.work(request)
        limit = clock() + int(request["seconds"] * 1e9)
        for row in rows:
            time.sleep(pauses.expovariate(1 / request["pause"]))
            if clock() > limit:
                break
            try:
                db.execute("BEGIN")
                db.execute(f"SELECT number FROM {request['table']} WHERE id = ?", (row[0],)).fetchall()
                db.execute(sql, row)
                db.execute("COMMIT")
            except sqlite3.OperationalError:
                busy += 1
                if db.in_transaction:
                    db.execute("ROLLBACK")
            done += 1
        return {"busy": busy, "done": done}

    def watch(self, request):
        """Polls one value until it is at least `until`. Answers each new value with the time it was first seen at."""
        sql, until, pause = request["sql"], request["until"], request["pause"]
        limit = clock() + int(request["seconds"] * 1e9)
        last, seen = None, []
        statement = self.db.cursor()
        while clock() < limit:
            value = statement.execute(sql).fetchall()[0][0]
            now = clock()
            if value is not None and value != last:
                seen.append((value, now))
                last = value
                if value >= until:
                    break
            time.sleep(pause)
        return {"reached": last is not None and last >= until, "seen": seen}

    def equal(self, request):
        """Polls until a row is this one. Answers when the read that saw it began, or null."""
        wanted = request["row"]
        limit = clock() + int(request["seconds"] * 1e9)
        while True:
            now = clock()
            if list(self.db.execute(request["sql"]).fetchall()[0]) == wanted:
                return now
            if now > limit:
                return None
            time.sleep(request["pause"])


def main():
    # Its rows make no cycles, and a collection would look like a slow commit.
    gc.disable()
    app = App(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(app, request["op"])(request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
