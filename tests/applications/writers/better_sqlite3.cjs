/** Writes with Node's better-sqlite3: DATABASE make|change OWN OTHER FIRST_ID, as writers.test.ts describes it. */
const process = require("node:process");
const Database = require("better-sqlite3");

const [path, phase, own, other, firstId] = process.argv.slice(2);
const db = new Database(path, { timeout: 60_000 });
db.pragma("trusted_schema = OFF");

function make() {
  const insert = db.prepare("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?)");
  insert.run(`${own}-full`, `${own} 🦫\0nul`, 1n, 0.1, Buffer.from([0, 255]), -9223372036854775808n);
  insert.run(`${own}-bare`, null, 2n, -0, Buffer.alloc(0), 9007199254740993n);
  insert.run(`${own}-moved`, `${own} moved`, 3n, 1e300, null, null);
  insert.run(`${own}-gone`, `${own} gone`, 4n, null, null, null);
  const move = db.prepare("INSERT INTO move(id, item, amount) VALUES (@id, @item, @amount)");
  const many = db.transaction((count) => {
    for (let i = 0; i < count; i++) {
      move.run({ id: Number(firstId) + i, item: `${own}-${i % 2 ? "full" : "gone"}`, amount: i });
    }
  });
  many.immediate(100);
  const undone = db.transaction(() => {
    db.exec("DELETE FROM item");
    throw new Error("undone");
  });
  try {
    undone.immediate();
  } catch (error) {
    if (error.message !== "undone") throw error;
  }
  db.prepare("UPDATE item SET id = id || '!' WHERE id = ?").run(`${own}-moved`);
  db.prepare(
    "INSERT INTO item(id, amount) VALUES (?, 10) ON CONFLICT (id) DO UPDATE SET amount = amount + excluded.amount",
  )
    .run(`${own}-bare`);
  db.prepare("REPLACE INTO item(id, name, amount) VALUES (?, ?, 5)").run(`${own}-replaced`, `${own} gone`);
}

function change() {
  const update = db.prepare("UPDATE item SET amount = amount * 100, picture = ? WHERE id = ?");
  const remove = db.prepare("DELETE FROM item WHERE id = ?");
  db.transaction(() => {
    update.run(Buffer.alloc(100_000, own), `${other}-full`);
    remove.run(`${other}-replaced`);
    db.prepare("DELETE FROM move WHERE item = ? AND amount > 50").run(`${other}-full`);
  }).immediate();
  db.prepare("UPDATE item SET name = ? WHERE id = ?").run(`named by ${own}`, `${other}-moved!`);
}

if (phase === "make") make();
else change();
db.close();
