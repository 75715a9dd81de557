"""An application of a test: a process of its own that uses Python's sqlite3.

Reads requests as JSON lines from stdin and answers each with one line, in order. A request is {"op": …}; an answer is
{"ok": …} or {"error": "…"}. Values in JSON: null, true numbers and strings stand for themselves, besides
{"i": "…"} an integer, {"f": "…"} a float, {"b": "…"} a blob and {"t": "…"} a text that JSON can't hold, both in base64.
"""

import base64
import hashlib
import json
import math
import sqlite3
import sys
import time

SAFE_INTEGER = 2**53 - 1
BUSY_TIMEOUT_S = 60


class Text(bytes):
    """TEXT as its bytes, to be told apart from a blob."""


def encode(value):
    if isinstance(value, Text):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"t": base64.b64encode(value).decode()}
    if isinstance(value, bytes):
        return {"b": base64.b64encode(value).decode()}
    if isinstance(value, int) and abs(value) > SAFE_INTEGER:
        return {"i": str(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"f": repr(value)}
    return value


def decode(value):
    if not isinstance(value, dict):
        return value
    if "i" in value:
        return int(value["i"])
    if "f" in value:
        return float(value["f"])
    return base64.b64decode(value["b"])


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def register(db):
    """What only this application knows: no other program has these functions and this collation."""
    db.create_function("app_slug", 1, lambda text: "-".join(str(text).lower().split()), deterministic=True)
    db.create_function("app_is_even", 1, lambda number: number % 2 == 0, deterministic=True)
    db.create_collation("app_backwards", lambda a, b: (a[::-1] > b[::-1]) - (a[::-1] < b[::-1]))


def tables_of(db):
    """Tables that hold rows of the application; `db` reads texts as bytes."""
    names = db.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'").fetchall()
    decoded = [bytes(name).decode() for (name,) in names]
    return sorted(name for name in decoded if not name.startswith(("__marmot__", "sqlite_")))


class App:
    def __init__(self, path, functions):
        self.path = path
        self.functions = functions
        self.db = self.connect()
        self.reader = None

    def connect(self):
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        if self.functions:
            register(db)
        return db

    def exact(self):
        """A second connection, which reads texts as bytes."""
        if self.reader is None:
            self.reader = self.connect()
            self.reader.text_factory = Text
        return self.reader

    def run(self, request):
        factory = self.db.text_factory
        self.db.text_factory = Text
        try:
            cursor = self.db.execute(request["sql"], [decode(value) for value in request["params"]])
            return [[encode(value) for value in row] for row in cursor.fetchall()]
        finally:
            self.db.text_factory = factory

    def script(self, request):
        self.db.executescript(request["sql"])

    def many(self, request):
        """Runs one statement for each row, in transactions of `per` rows."""
        rows = [[decode(value) for value in row] for row in request["rows"]]
        for start in range(0, len(rows), request["per"]):
            self.db.execute("BEGIN IMMEDIATE")
            self.db.executemany(request["sql"], rows[start : start + request["per"]])
            self.db.execute("COMMIT")

    def python(self, request):
        """Runs a piece of Python, which may use `db` and sets `result`."""
        scope = {"db": self.db, "connect": self.connect, "time": time, "result": None}
        exec(request["code"], scope)
        return scope["result"]

    def facts(self, _request):
        """How far Marmot is, in one read snapshot."""
        db = self.exact()
        try:
            db.execute("BEGIN")
            return self.read_facts(db)
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def read_facts(self, db):
        names = {Text(name).decode() for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if "__marmot__cursors" not in names:
            return {"ready": False, "pending": {}, "cursors": [], "parked": 0, "captured": []}
        logs = [name for name in names if name.startswith("__marmot__") and name.endswith("_change_log")]
        counts = {log[10:-11]: db.execute(f"SELECT count(*) FROM {quoted(log)}").fetchone()[0] for log in logs}
        cursors = db.execute("SELECT shard, cursor FROM __marmot__cursors ORDER BY shard").fetchall()
        sql = "SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger' AND name = '__marmot__' || tbl_name || '_delete'"
        return {
            "ready": True,
            "pending": {table: count for table, count in counts.items() if count > 0},
            "cursors": [list(row) for row in cursors],
            "parked": db.execute("SELECT count(*) FROM __marmot__parked").fetchone()[0],
            "captured": sorted(Text(name).decode() for (name,) in db.execute(sql)),
        }

    def dump(self, request):
        """Of each table a digest over its rows with storage classes and bytes, whatever their order."""
        db = self.exact()
        digests = {}
        db.execute("BEGIN")
        try:
            for name in request["tables"] or tables_of(db):
                rows = [repr(row) for row in self.rows_of(db, name)]
                digests[name] = f"{len(rows)} rows {hashlib.sha256(chr(10).join(rows).encode()).hexdigest()[:16]}"
        finally:
            db.execute("ROLLBACK")
        return digests

    def rows(self, request):
        return [repr(row) for row in self.rows_of(self.exact(), request["table"])]

    def rows_of(self, db, name):
        columns = db.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1", (name,)).fetchall()
        select = ", ".join(quoted(bytes(column).decode()) for (column,) in columns)
        rows = db.execute(f"SELECT {select} FROM {quoted(name)}").fetchall()
        plain = [tuple(("text", bytes(value)) if isinstance(value, Text) else value for value in row) for row in rows]
        return sorted(plain, key=repr)


def main():
    app = App(sys.argv[1], functions="--functions" in sys.argv)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(app, request["op"])(request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
