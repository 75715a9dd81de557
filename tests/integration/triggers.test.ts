import assert from "node:assert/strict";
import { type Cluster, clusterTests } from "../support/cluster.ts";

/** tables of each node's own, which triggers fill; they are not compared */
const LOCAL = "local_*";

interface Case {
  readonly local?: readonly string[];
  readonly tables: string;
  readonly triggers: string;
  run(cluster: Cluster): Promise<void>;
}

const before = clusterTests({ args: ["--exclude", LOCAL] });
const after = clusterTests({ args: ["--exclude", LOCAL] });

/** The same promise with the application's triggers made before Marmot's, and after them. */
function trigger(promise: string, { local = [], tables, triggers, run }: Case): void {
  before(`${promise} (trigger made before Marmot's)`, async (cluster) => {
    await cluster.schema(`BEGIN; ${tables} ${triggers} COMMIT`, { uncaptured: local });
    await run(cluster);
  });
  after(`${promise} (trigger made after Marmot's)`, async (cluster) => {
    await cluster.schema(tables, { uncaptured: local });
    for (const { app } of cluster.nodes) await app.script(triggers);
    await run(cluster);
  });
}

trigger("AFTER INSERT that fills a slug arrives filled", {
  tables: "CREATE TABLE post(id INTEGER PRIMARY KEY, title TEXT, slug TEXT);",
  triggers: `CREATE TRIGGER post_slug AFTER INSERT ON post BEGIN
    UPDATE post SET slug = lower(replace(NEW.title, ' ', '-')) || '-' || hex(randomblob(4)) WHERE id = NEW.id; END;`,
  run: async ({ a, b, converged }) => {
    await a.app.script("INSERT INTO post(title) VALUES ('Hello World'), ('Second')");
    await converged();
    await b.app.script(
      "BEGIN; INSERT INTO post(title) VALUES ('Third'); UPDATE post SET title = 'x' WHERE id = 3; COMMIT",
    );
    await converged();
    assert.equal(await a.app.value("SELECT slug LIKE 'third-________' FROM post WHERE id = 3"), 1);
  },
});

trigger("AFTER UPDATE that sets updated_at arrives as the origin set it", {
  tables: "CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT, updated_at TEXT, revision INTEGER DEFAULT 0);",
  triggers: `CREATE TRIGGER note_updated AFTER UPDATE OF body ON note BEGIN
    UPDATE note SET updated_at = strftime('%f', 'now') || random(), revision = OLD.revision + 1 WHERE id = NEW.id; END;`,
  run: async ({ a, b, converged }) => {
    await a.app.script("INSERT INTO note(id, body) VALUES (1, 'a'), (2, 'b')");
    await converged();
    await b.app.script("UPDATE note SET body = body || '!'; UPDATE note SET body = 'again' WHERE id = 1");
    await converged();
    assert.deepEqual(await a.app.run("SELECT id, body, revision FROM note ORDER BY id"), [[1, "again", 2], [
      2,
      "b!",
      1,
    ]]);
  },
});

trigger("a captured audit table has each row once", {
  tables: `CREATE TABLE account(id INTEGER PRIMARY KEY, n INTEGER);
    CREATE TABLE audit(id TEXT PRIMARY KEY DEFAULT (hex(randomblob(8))), what TEXT, account INTEGER);`,
  triggers:
    `CREATE TRIGGER account_i AFTER INSERT ON account BEGIN INSERT INTO audit(what, account) VALUES ('insert', NEW.id); END;
    CREATE TRIGGER account_u AFTER UPDATE ON account BEGIN INSERT INTO audit(what, account) VALUES ('update', NEW.id); END;
    CREATE TRIGGER account_d BEFORE DELETE ON account BEGIN INSERT INTO audit(what, account) VALUES ('delete', OLD.id); END;`,
  run: async ({ a, b, converged }) => {
    await a.app.script("INSERT INTO account VALUES (1, 1), (2, 2), (3, 3); UPDATE account SET n = n + 1 WHERE id < 3");
    await converged();
    await b.app.script(
      "DELETE FROM account WHERE id = 3; INSERT INTO account VALUES (4, 4); UPDATE account SET id = 5 WHERE id = 4",
    );
    await converged();
    assert.deepEqual(await a.app.run("SELECT what, count(*) FROM audit GROUP BY what ORDER BY what"), [
      ["delete", 1],
      ["insert", 4],
      ["update", 3],
    ]);
  },
});

trigger("an excluded audit table is filled once at each node", {
  local: ["local_audit"],
  tables: `CREATE TABLE stock(id INTEGER PRIMARY KEY, n INTEGER);
    CREATE TABLE local_audit(id INTEGER PRIMARY KEY, what TEXT, stock INTEGER, n INTEGER);`,
  triggers:
    `CREATE TRIGGER stock_i AFTER INSERT ON stock BEGIN INSERT INTO local_audit(what, stock, n) VALUES ('insert', NEW.id, NEW.n); END;
    CREATE TRIGGER stock_u BEFORE UPDATE ON stock BEGIN INSERT INTO local_audit(what, stock, n) VALUES ('update', NEW.id, NEW.n); END;
    CREATE TRIGGER stock_d AFTER DELETE ON stock BEGIN INSERT INTO local_audit(what, stock, n) VALUES ('delete', OLD.id, OLD.n); END;`,
  run: async ({ a, b, converged }) => {
    await a.app.script("INSERT INTO stock VALUES (1, 1), (2, 2), (3, 3)");
    await converged();
    await b.app.script("UPDATE stock SET n = n + 10 WHERE id < 3; DELETE FROM stock WHERE id = 3");
    await converged();
    const audit = "SELECT what, stock, n FROM local_audit ORDER BY what, stock";
    assert.deepEqual(await a.app.run(audit), [
      ["delete", 3, 3],
      ["insert", 1, 1],
      ["insert", 2, 2],
      ["insert", 3, 3],
      ["update", 1, 11],
      ["update", 2, 12],
    ]);
    assert.deepEqual(await b.app.run(audit), await a.app.run(audit));
  },
});

trigger("rows of an uncaptured table that triggers update and delete are updated and deleted at each node", {
  local: ["local_cache"],
  tables: `CREATE TABLE doc(id INTEGER PRIMARY KEY, body TEXT);
    CREATE TABLE local_cache(doc INTEGER PRIMARY KEY, hits INTEGER DEFAULT 0, changes INTEGER DEFAULT 0);`,
  triggers: `CREATE TRIGGER doc_i AFTER INSERT ON doc BEGIN INSERT INTO local_cache(doc) VALUES (NEW.id); END;
    CREATE TRIGGER doc_u AFTER UPDATE ON doc BEGIN UPDATE local_cache SET changes = changes + 1 WHERE doc = NEW.id; END;
    CREATE TRIGGER doc_d BEFORE DELETE ON doc BEGIN DELETE FROM local_cache WHERE doc = OLD.id; END;`,
  run: async ({ a, b, converged }) => {
    await a.app.script("INSERT INTO doc VALUES (1, 'x'), (2, 'y'), (3, 'z')");
    await converged();
    await b.app.script(
      "UPDATE local_cache SET hits = 7; UPDATE doc SET body = 'new' WHERE id = 1; DELETE FROM doc WHERE id = 2",
    );
    await converged();
    assert.deepEqual(await a.app.run("SELECT * FROM local_cache ORDER BY doc"), [[1, 0, 1], [3, 0, 0]]);
    assert.deepEqual(await b.app.run("SELECT * FROM local_cache ORDER BY doc"), [[1, 7, 1], [3, 7, 0]]);
  },
});

trigger("counters in another captured table are counted once", {
  tables:
    "CREATE TABLE thread(id INTEGER PRIMARY KEY, comments INTEGER DEFAULT 0); CREATE TABLE comment(id INTEGER PRIMARY KEY, thread INTEGER);",
  triggers:
    `CREATE TRIGGER comment_i AFTER INSERT ON comment BEGIN UPDATE thread SET comments = comments + 1 WHERE id = NEW.thread; END;
    CREATE TRIGGER comment_d AFTER DELETE ON comment BEGIN UPDATE thread SET comments = comments - 1 WHERE id = OLD.thread; END;
    CREATE TRIGGER thread_d AFTER DELETE ON thread BEGIN DELETE FROM comment WHERE thread = OLD.id; END;`,
  run: async ({ a, b, converged }) => {
    await a.app.script(
      "INSERT INTO thread(id) VALUES (1), (2); INSERT INTO comment VALUES (1, 1), (2, 1), (3, 2), (4, 2)",
    );
    await converged();
    await b.app.script("DELETE FROM comment WHERE id = 1; INSERT INTO comment VALUES (5, 2)");
    await converged();
    assert.deepEqual(await a.app.run("SELECT * FROM thread ORDER BY id"), [[1, 1], [2, 3]]);
    await a.app.script("DELETE FROM thread WHERE id = 2");
    await converged();
    assert.deepEqual(await b.app.run("SELECT * FROM comment"), [[2, 1]]);
  },
});

trigger("a trigger that deletes from its own table deletes only what it deleted at the origin", {
  tables: "CREATE TABLE session(id TEXT PRIMARY KEY, user INTEGER);",
  triggers:
    "CREATE TRIGGER one_session AFTER INSERT ON session BEGIN DELETE FROM session WHERE user = NEW.user AND id <> NEW.id; END;",
  run: async ({ a, b, converged, apart }) => {
    await a.app.script(
      "INSERT INTO session VALUES ('a1', 1); INSERT INTO session VALUES ('a2', 1); INSERT INTO session VALUES ('a3', 2)",
    );
    await apart(async () => {
      await a.app.script("INSERT INTO session VALUES ('a4', 3)");
      await b.app.script("INSERT INTO session VALUES ('b4', 3)");
    });
    await converged();
    assert.deepEqual(await b.app.run("SELECT id FROM session ORDER BY id"), [["a2"], ["a3"], ["a4"], ["b4"]]);
  },
});

trigger("a trigger that updates other rows of its own table updates only what it updated at the origin", {
  tables: "CREATE TABLE item(id INTEGER PRIMARY KEY, place INTEGER, main INTEGER DEFAULT 0);",
  triggers:
    `CREATE TRIGGER item_shift BEFORE INSERT ON item BEGIN UPDATE item SET place = place + 1 WHERE place >= NEW.place; END;
    CREATE TRIGGER item_main AFTER UPDATE OF main ON item WHEN NEW.main = 1 BEGIN UPDATE item SET main = 0 WHERE id <> NEW.id AND main <> 0; END;`,
  run: async ({ a, b, converged, apart }) => {
    await a.app.script(
      "INSERT INTO item(id, place) VALUES (1, 1); INSERT INTO item(id, place) VALUES (2, 1); INSERT INTO item(id, place) VALUES (3, 2)",
    );
    await converged();
    assert.deepEqual(await b.app.run("SELECT id, place FROM item ORDER BY id"), [[1, 3], [2, 1], [3, 2]]);
    await apart(async () => {
      await a.app.script("UPDATE item SET main = 1 WHERE id = 1; INSERT INTO item(id, place) VALUES (10, 1)");
      await b.app.script("UPDATE item SET main = 1 WHERE id = 2; INSERT INTO item(id, place) VALUES (20, 2)");
    });
    await converged();
    await b.app.script("UPDATE item SET main = 1 WHERE id = 3");
    await converged();
    assert.deepEqual(await a.app.run("SELECT id FROM item WHERE main = 1"), [[3]]);
  },
});

trigger("validation with RAISE(ABORT) that held at each origin doesn't stop a change", {
  tables: "CREATE TABLE seat(id TEXT PRIMARY KEY, row INTEGER, locked INTEGER DEFAULT 0);",
  triggers:
    `CREATE TRIGGER seat_full BEFORE INSERT ON seat WHEN (SELECT count(*) FROM seat WHERE row = NEW.row) >= 2 BEGIN
      SELECT RAISE(ABORT, 'this row is full'); END;
    CREATE TRIGGER seat_locked BEFORE UPDATE OF row ON seat WHEN OLD.locked BEGIN SELECT RAISE(FAIL, 'locked'); END;
    CREATE TRIGGER seat_kept AFTER DELETE ON seat WHEN OLD.locked BEGIN SELECT RAISE(ROLLBACK, 'locked'); END;`,
  run: async ({ a, b, converged, apart }) => {
    await a.app.script("INSERT INTO seat VALUES ('a1', 1, 0), ('a2', 2, 0)");
    await apart(async () => {
      await a.app.script("INSERT INTO seat VALUES ('a3', 1, 0); UPDATE seat SET locked = 1 WHERE id = 'a1'");
      await b.app.script(
        "INSERT INTO seat VALUES ('b3', 1, 0); UPDATE seat SET row = 3 WHERE id = 'a1'; DELETE FROM seat WHERE id = 'a2'",
      );
    });
    await converged();
    assert.equal(await a.app.value("SELECT group_concat(id) FROM (SELECT id FROM seat ORDER BY id)"), "a1,a3,b3");
    await assert.rejects(b.app.script("INSERT INTO seat VALUES ('b4', 1, 0)"), /this row is full/);
    await a.app.script("UPDATE seat SET locked = 0; DELETE FROM seat");
    await converged();
  },
});

trigger("RAISE(IGNORE) skips rows at the origin only", {
  tables: "CREATE TABLE limited(id TEXT PRIMARY KEY); CREATE TABLE rising(id INTEGER PRIMARY KEY, v INTEGER);",
  triggers:
    `CREATE TRIGGER limited_i BEFORE INSERT ON limited WHEN (SELECT count(*) FROM limited) >= 2 BEGIN SELECT RAISE(IGNORE); END;
    CREATE TRIGGER rising_u BEFORE UPDATE ON rising WHEN NEW.v < OLD.v BEGIN SELECT RAISE(IGNORE); END;
    CREATE TRIGGER rising_d BEFORE DELETE ON rising WHEN OLD.v > 5 BEGIN SELECT RAISE(IGNORE); END;`,
  run: async ({ a, b, converged, apart }) => {
    await a.app.script("INSERT INTO rising VALUES (1, 1), (2, 1)");
    await apart(async () => {
      await a.app.script(
        "INSERT INTO limited VALUES ('a1'), ('a2'), ('a3'); UPDATE rising SET v = 10; DELETE FROM rising",
      );
      await b.app.script(
        "INSERT INTO limited VALUES ('b1'), ('b2'), ('b3'); UPDATE rising SET v = 5 WHERE id = 1; DELETE FROM rising WHERE id = 2",
      );
    });
    await converged();
    assert.equal(await a.app.value("SELECT count(*) FROM limited"), 4);
  },
});

trigger("nested triggers over captured and local tables take effect once everywhere", {
  local: ["local_trail"],
  tables:
    `CREATE TABLE sale(id INTEGER PRIMARY KEY, amount INTEGER); CREATE TABLE entry(id TEXT PRIMARY KEY, amount INTEGER);
    CREATE TABLE total(id INTEGER PRIMARY KEY, amount INTEGER); CREATE TABLE local_trail(what TEXT);`,
  triggers: `INSERT OR IGNORE INTO total VALUES (1, 0);
    CREATE TRIGGER sale_i AFTER INSERT ON sale BEGIN
      INSERT INTO entry VALUES ('sale ' || NEW.id, NEW.amount); INSERT INTO local_trail VALUES ('sale ' || NEW.id); END;
    CREATE TRIGGER entry_i AFTER INSERT ON entry BEGIN
      UPDATE total SET amount = amount + NEW.amount WHERE id = 1; INSERT INTO local_trail VALUES ('entry ' || NEW.id); END;
    CREATE TRIGGER total_u AFTER UPDATE ON total BEGIN INSERT INTO local_trail VALUES ('total'); END;`,
  run: async ({ a, b, converged }) => {
    await converged();
    await a.app.script("INSERT INTO sale VALUES (1, 10), (2, 20)");
    await converged();
    await b.app.script("INSERT INTO sale VALUES (3, 30)");
    await converged();
    assert.equal(await a.app.value("SELECT amount FROM total"), 60);
    const trail = "SELECT what, count(*) FROM local_trail WHERE what <> 'total' GROUP BY what ORDER BY what";
    const once = ["entry sale 1", "entry sale 2", "entry sale 3", "sale 1", "sale 2", "sale 3"].map((
      what,
    ) => [what, 1]);
    assert.deepEqual(await a.app.run(trail), once);
    assert.deepEqual(await b.app.run(trail), once);
  },
});

trigger("upserts and REPLACE inside triggers take effect once", {
  tables: `CREATE TABLE hit(id INTEGER PRIMARY KEY, page TEXT); CREATE TABLE page(name TEXT PRIMARY KEY, hits INTEGER);
    CREATE TABLE latest(page TEXT PRIMARY KEY, hit INTEGER UNIQUE, mark TEXT);`,
  triggers: `CREATE TRIGGER hit_page AFTER INSERT ON hit BEGIN
      INSERT INTO page VALUES (NEW.page, 1) ON CONFLICT (name) DO UPDATE SET hits = hits + 1; END;
    CREATE TRIGGER hit_latest AFTER INSERT ON hit BEGIN REPLACE INTO latest VALUES (NEW.page, NEW.id, hex(randomblob(4))); END;
    CREATE TRIGGER hit_undo AFTER DELETE ON hit BEGIN INSERT OR REPLACE INTO page SELECT name, hits - 1 FROM page WHERE name = OLD.page; END;`,
  run: async ({ a, b, converged, apart }) => {
    await a.app.script("INSERT INTO hit VALUES (1, 'x'), (2, 'x'), (3, 'y')");
    await converged();
    await b.app.script("INSERT INTO hit VALUES (4, 'x'); DELETE FROM hit WHERE id = 1");
    await converged();
    assert.deepEqual(await a.app.run("SELECT * FROM page ORDER BY name"), [["x", 2], ["y", 1]]);
    await apart(async () => {
      await a.app.script("INSERT INTO hit VALUES (5, 'z')");
      await b.app.script("INSERT INTO hit VALUES (5, 'w')");
    });
    await converged();
  },
});

trigger("UPDATE OF, WHEN and several triggers of one event take effect once", {
  tables:
    "CREATE TABLE ticket(id INTEGER PRIMARY KEY, state TEXT, closed_at TEXT, n INTEGER DEFAULT 0); CREATE TABLE event(id TEXT PRIMARY KEY, what TEXT);",
  triggers:
    `CREATE TRIGGER ticket_closed AFTER UPDATE OF state ON ticket WHEN NEW.state = 'closed' AND OLD.state <> 'closed' BEGIN
      UPDATE ticket SET closed_at = hex(randomblob(8)) WHERE id = NEW.id; INSERT INTO event VALUES (hex(randomblob(8)), 'closed'); END;
    CREATE TRIGGER ticket_any AFTER UPDATE OF state ON ticket BEGIN UPDATE ticket SET n = n + 1 WHERE id = NEW.id; END;
    CREATE TRIGGER ticket_n BEFORE UPDATE OF n ON ticket BEGIN INSERT INTO event VALUES (hex(randomblob(8)), 'counted'); END;`,
  run: async ({ a, b, converged }) => {
    await a.app.script("INSERT INTO ticket(id, state) VALUES (1, 'open'), (2, 'open')");
    await converged();
    await b.app.script("UPDATE ticket SET state = 'closed' WHERE id = 1; UPDATE ticket SET state = 'busy'");
    await converged();
    assert.deepEqual(await a.app.run("SELECT what, count(*) FROM event GROUP BY what ORDER BY what"), [["closed", 1], [
      "counted",
      3,
    ]]);
    assert.deepEqual(await a.app.run("SELECT id, n FROM ticket ORDER BY id"), [[1, 2], [2, 1]]);
  },
});

trigger("a trigger that deletes or moves the very row it was fired for leaves the same rows everywhere", {
  tables: "CREATE TABLE queue(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE taken(id INTEGER PRIMARY KEY, v TEXT);",
  triggers: `CREATE TRIGGER queue_i AFTER INSERT ON queue WHEN NEW.v = 'at once' BEGIN
      INSERT INTO taken VALUES (NEW.id, NEW.v); DELETE FROM queue WHERE id = NEW.id; END;
    CREATE TRIGGER queue_u AFTER UPDATE ON queue WHEN NEW.v = 'moved' BEGIN UPDATE queue SET id = id + 100, v = 'done' WHERE id = NEW.id; END;`,
  run: async ({ a, b, converged }) => {
    await a.app.script("INSERT INTO queue VALUES (1, 'at once'), (2, 'later')");
    await converged();
    await b.app.script("UPDATE queue SET v = 'moved' WHERE id = 2; INSERT INTO queue VALUES (1, 'kept')");
    await converged();
    assert.deepEqual(await a.app.run("SELECT * FROM queue ORDER BY id"), [[1, "kept"], [102, "done"]]);
  },
});

trigger("a local table that mirrors a captured one follows changes of both nodes", {
  local: ["local_mirror"],
  tables:
    "CREATE TABLE source(id INTEGER PRIMARY KEY, name TEXT UNIQUE); CREATE TABLE local_mirror(id INTEGER PRIMARY KEY, name TEXT);",
  triggers:
    `CREATE TRIGGER source_i AFTER INSERT ON source BEGIN INSERT INTO local_mirror VALUES (NEW.id, NEW.name); END;
    CREATE TRIGGER source_u AFTER UPDATE ON source BEGIN UPDATE local_mirror SET id = NEW.id, name = NEW.name WHERE id = OLD.id; END;
    CREATE TRIGGER source_d AFTER DELETE ON source BEGIN DELETE FROM local_mirror WHERE id = OLD.id; END;`,
  run: async ({ a, b, converged, apart }) => {
    await a.app.script("INSERT INTO source VALUES (1, 'x'), (2, 'y'), (3, 'z')");
    await apart(async () => {
      await a.app.script(
        "INSERT INTO source VALUES (10, 'clash'); UPDATE source SET name = 'a' WHERE id = 1; DELETE FROM source WHERE id = 2",
      );
      await b.app.script(
        "INSERT INTO source VALUES (20, 'clash'); UPDATE source SET name = 'b' WHERE id = 1; UPDATE source SET id = 30 WHERE id = 3",
      );
    });
    await converged();
    for (const { app } of [a, b]) {
      assert.deepEqual(
        await app.run("SELECT * FROM local_mirror ORDER BY id"),
        await app.run("SELECT * FROM source ORDER BY id"),
      );
    }
  },
});
