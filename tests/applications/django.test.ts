import assert from "node:assert/strict";
import { cp } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { emptyCluster, haveDjango, type Installed, runInstalled } from "../support/applications.ts";
import { type Cluster, type TestNode, until } from "../support/cluster.ts";

const PROJECT = fileURLToPath(new URL("./django/", import.meta.url));
/** each node's own, as Marmot says in its log */
const LEDGER = "django_migrations";
const MIGRATE_TRIES = 5;
const SHOP = ["shop_author", "shop_book", "shop_book_tags", "shop_review", "shop_tag"];

/** The project on one node, in the version of its code that was deployed there. */
class Site {
  #version = 0;

  constructor(readonly node: TestNode, private readonly django: Installed, private readonly folder: string) {}

  /** Puts this version of the code there: its models, and the migrations up to it. */
  async deploy(version: number): Promise<void> {
    const isThere = (path: string) => Number(/000(\d)_\w+\.py$/.exec(path)?.[1] ?? 0) <= version;
    await cp(PROJECT, this.folder, { recursive: true, filter: isThere });
    this.#version = version;
  }

  /** @returns what it printed */
  manage(...args: string[]): Promise<string> {
    const firstId = (1 + "abcdefgh".indexOf(this.node.name)) * 1_000_000;
    const env = {
      SHOP_DATABASE: this.node.path,
      SHOP_VERSION: String(this.#version),
      SHOP_FIRST_ID: String(firstId),
    };
    return runInstalled(this.django, ["manage.py", ...args], { cwd: this.folder, env });
  }

  /** Python code with all models at hand. @returns what it printed */
  async orm(code: string): Promise<string> {
    const imports = "from django.contrib.auth.models import Permission, User\nfrom shop.ids import own_id\n";
    return (await this.manage("shell", "--verbosity", "0", "--command", imports + code.replace(/^ {4}/gm, ""))).trim();
  }
}

function sites(cluster: Cluster, django: Installed): Site[] {
  return cluster.nodes.map((node) => new Site(node, django, cluster.folder.file(`site-${node.name}`)));
}

const everywhere = <T>(all: readonly Site[], action: (site: Site) => Promise<T>) => Promise.all(all.map(action));
const converged = (cluster: Cluster) => cluster.converged({ except: [LEDGER] });

async function migrateAlone(site: Site, cluster: Cluster, version: number, migration: string): Promise<void> {
  await site.deploy(version);
  const applied = await site.node.app.value(
    `SELECT count(*) FROM ${LEDGER} WHERE app = 'shop' AND name = ?`,
    migration,
  );
  assert.equal(applied, 0, "the other node's ledger came through");
  assert.match(await site.manage("migrate", "--no-color"), new RegExp(`Applying shop.${migration}... OK`));
  await cluster.captured(version >= 2 ? [...SHOP, "shop_order"] : SHOP, [site.node]);
}

test("a Django project is replicated, and goes on through migrations that add, alter, rename and remove columns", async (context) => {
  const django = await haveDjango(context);
  if (django === undefined) return;
  await using cluster = await emptyCluster(2);
  const [a, b] = sites(cluster, django) as [Site, Site];
  await everywhere([a, b], async (site) => {
    await site.deploy(1);
    await site.node.app.script("PRAGMA journal_mode = WAL");
    await site.manage("migrate");
  });
  for (const { node } of [a, b]) await node.start();
  await a.node.marmot!.waitFor("django_migrations");

  await writesOnBoth(cluster, a, b);
  await addsColumns(cluster, a, b);
  await altersColumns(cluster, a, b);
  await removesColumn(cluster, a, b);
  for (const { node } of [a, b]) await node.running();
});

async function writesOnBoth(cluster: Cluster, a: Site, b: Site): Promise<void> {
  await Promise.all([
    a.orm(`
    ada = Author.objects.create(email="ada@x", name="Ada", born="1815-12-10")
    notes = ada.books.create(title="Notes", isbn="1", price="19.99", details={"pages": [1, 2.5, None]}, cover=b"\\0\\xff", published="1843-09-01T00:00:00Z", bestseller=True)
    ada.books.create(title="Letters")
    tag = Tag.objects.create(name="engines")
    Book.tags.through.objects.create(id=own_id(Book.tags.through), book=notes, tag=tag)
    user = User.objects.create_user("ada", "ada@x", "secret")
    through = User.user_permissions.through
    through.objects.create(id=own_id(through), user=user, permission=Permission.objects.get(codename="add_book"))
    notes.reviews.create(user=user, text="mine")`),
    b.orm(`
    grace = Author.objects.create(email="grace@x")
    Book.objects.bulk_create(Book(id=own_id(Book) + i, author=grace, title=f"Volume {i}", price=i) for i in range(200))
    Author.objects.create(email="gone@x").books.create(title="Gone")
    Session.objects.create(session_key="k", session_data="d", expire_date="2100-01-01T00:00:00Z")`),
  ]);
  await converged(cluster);

  await Promise.all([
    a.orm(`
    from django.db import models, transaction
    with transaction.atomic():
        Book.objects.filter(author__email="grace@x", price__gte=100).delete()
        Book.objects.filter(author__email="grace@x").update(price=models.F("price") * 2)
    Author.objects.get(email="gone@x").delete()`),
    b.orm(`
    notes = Book.objects.get(isbn="1")
    assert notes.details == {"pages": [1, 2.5, None]} and bytes(notes.cover) == b"\\0\\xff" and str(notes.price) == "19.99", notes
    notes.title = "Notes, with proofs"
    notes.save()
    notes.reviews.create(text="theirs")
    assert User.objects.get(username="ada").has_perm("shop.add_book")
    User.objects.get(username="ada").delete()`),
  ]);
  await converged(cluster);
  assert.equal(await a.orm("print(Book.objects.count(), Review.objects.filter(user=None).count())"), "102 2");
}

/** Between the two migrations each node writes in its own version. */
async function addsColumns(cluster: Cluster, a: Site, b: Site): Promise<void> {
  await migrateAlone(a, cluster, 2, "0002_add");
  await Promise.all([
    a.orm(`
    Author.objects.filter(email="ada@x").update(biography="Countess")
    book = Book.objects.create(author=Author.objects.get(email="grace@x"), title="Compilers", stock=5, language="de")
    Order.objects.create(book=book, amount=3)`),
    b.orm(`
    Book.objects.create(author=Author.objects.get(email="ada@x"), title="Written in version 1")
    Book.objects.filter(isbn="1").update(price="5.55")
    Tag.objects.create(name="meanwhile")`),
  ]);
  const cameThrough = async () =>
    await a.node.app.value("SELECT count(*) FROM shop_tag WHERE name = 'meanwhile'") === 1;
  await until("the other tables go on", cameThrough, { nodes: cluster.nodes });
  await migrateAlone(b, cluster, 2, "0002_add");
  await converged(cluster);
  await Promise.all([
    a.orm(`Book.objects.filter(title="Written in version 1").update(stock=7)`),
    b.orm(`
    compilers = Book.objects.get(title="Compilers")
    assert (compilers.stock, compilers.language) == (5, "de"), compilers
    compilers.order_set.update(amount=4)
    Author.objects.create(email="new@x", biography="of version 2").books.create(title="Two")`),
  ]);
  await converged(cluster);
}

async function altersColumns(cluster: Cluster, a: Site, b: Site): Promise<void> {
  await migrateAlone(a, cluster, 3, "0003_alter");
  await Promise.all([
    a.orm(`
    Author.objects.filter(email="ada@x").update(handle="ada")
    Book.objects.filter(isbn="1").update(title="long " * 100)
    Review.objects.update(body="as of version 3")`),
    b.orm(`
    Author.objects.create(email="late@x", name="Late")
    Book.objects.get(isbn="1").reviews.create(text="as of version 2")
    Book.objects.filter(title="Two").update(stock=2)`),
  ]);
  await migrateAlone(b, cluster, 3, "0003_alter");
  await converged(cluster);
  await Promise.all([
    a.orm(`Author.objects.get(email="late@x").books.create(title="Three of a", bestseller=True)`),
    b.orm(`
    Author.objects.filter(email="late@x").update(handle="late")
    Book.objects.create(author=Author.objects.get(handle="ada"), title="Three of b " * 50)`),
  ]);
  await converged(cluster);
}

async function removesColumn(cluster: Cluster, a: Site, b: Site): Promise<void> {
  for (const site of [a, b]) await migrateAlone(site, cluster, 4, "0004_remove");
  await a.orm(`Book.objects.filter(isbn="1").update(stock=4)`);
  await b.orm(`Book.objects.filter(title="Letters").delete()`);
  await converged(cluster);
  assert.deepEqual(await schemaOf(a), await schemaOf(b));
}

test("Django's first migration runs on both nodes at once while Marmot does, from databases that it created", async (context) => {
  const django = await haveDjango(context);
  if (django === undefined) return;
  await using cluster = await emptyCluster(2, ["--create"]);
  const both = sites(cluster, django) as [Site, Site];
  for (const { node } of both) await node.start();
  await everywhere(both, async (site) => {
    await site.deploy(4);
    await migrateAgain(site);
  });
  await cluster.captured([...SHOP, "shop_order", "auth_user", "auth_permission", "django_content_type"]);
  await converged(cluster);
  await everywhere(both, (site) =>
    site.orm(`
    for i in range(50):
        author = Author.objects.create(email=f"{i}@${site.node.name}", name="N")
        book = author.books.create(title="first", bestseller=True, details={"i": i})
        author.books.create(title="second")
        book.reviews.create(body="good")
        if i % 5 == 0:
            author.delete()`));
  await converged(cluster);
  const clash = (site: Site) => site.orm(`Author.objects.create(email="same@x", name="of ${site.node.name}")`);
  await cluster.apart(() => everywhere(both, clash).then(() => {}));
  await converged(cluster);
  assert.equal(await both[0].orm("print(Author.objects.count(), Book.objects.count())"), "81 160");
  for (const { node } of both) await node.running();
});

/**
 * Django looks which content types and permissions are missing, and then makes them. Where another node's arrive in
 * between it fails, as it would when two ran on one shared database, and is run again.
 */
async function migrateAgain(site: Site): Promise<void> {
  for (let tries = 1;; tries++) {
    try {
      await site.manage("migrate");
      return;
    } catch (error) {
      const raced = /UNIQUE constraint failed: (django_content_type|auth_permission)/.test(String(error));
      if (!raced || tries >= MIGRATE_TRIES) throw error;
    }
  }
}

/** What the application's tables are like, whatever Marmot adds. */
async function schemaOf({ node }: Site): Promise<unknown> {
  return await node.app.run(
    "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE '\\_\\_marmot\\_\\_%' ESCAPE '\\' ORDER BY name",
  );
}
