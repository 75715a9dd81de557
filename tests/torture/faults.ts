/** What is done to nodes, brokers and the network between them. */
import type { Random } from "../support/random.ts";
import { BROKERS, type Brokers } from "./brokers.ts";
import type { Link, Way } from "./link.ts";
import type { Restore, TortureNode } from "./node.ts";

/** What may be hurt, and a wait that ends early when all has to come back. */
export interface Victims {
  readonly nodes: readonly TortureNode[];
  readonly brokers: Brokers;
  pause(ms: number): Promise<void>;
}

export interface Fault {
  readonly kind: string;
  /** what no other fault may hurt at the same time */
  readonly needs: readonly string[];
  /** Does it, waits, and makes it good again. */
  run(): Promise<void>;
}

type Draw = (victims: Victims, random: Random) => Fault;

const SHORT_MS = 1_500;
const LONG_MS = 7_000;
const LOSS_STEPS = 12;

function between(random: Random, low: number, high: number): number {
  return low + random.below(high - low);
}

function linkNeeds(links: readonly Link[]): string[] {
  return links.map(({ name }) => `link ${name}`);
}

function drawNode({ nodes }: Victims, random: Random): TortureNode {
  return random.pick(nodes);
}

/** Links that fail together: a node from all brokers, a broker from the others, or from everything. */
function drawLinks({ nodes, brokers }: Victims, random: Random): Link[] {
  const broker = random.below(BROKERS);
  const routes = brokers.routes.filter(({ name }) => name.includes(`n${broker + 1}`));
  const clients = nodes.map(({ setup }) => setup.links[broker]!);
  const node = random.pick(nodes);
  return random.pick([[...node.setup.links], [...node.setup.links], [node.setup.links[broker]!], routes, [
    ...routes,
    ...clients,
  ]]);
}

function killMarmot(victims: Victims, random: Random): Fault {
  const node = drawNode(victims, random);
  const [ms, how] = [random.below(SHORT_MS), random.pick(["kill", "kill", "kill", "stop"] as const)];
  return {
    kind: how === "kill" ? "Marmot killed" : "Marmot stopped",
    needs: [`marmot ${node.name}`],
    async run() {
      await node.endMarmot(how);
      await victims.pause(ms);
      await node.startMarmot();
    },
  };
}

function freezeMarmot(victims: Victims, random: Random): Fault {
  const [node, ms] = [drawNode(victims, random), between(random, 200, LONG_MS)];
  return {
    kind: "Marmot frozen",
    needs: [`marmot ${node.name}`],
    async run() {
      node.freeze();
      await victims.pause(ms);
      node.thaw();
    },
  };
}

function killApplications(victims: Victims, random: Random): Fault {
  const [node, ms] = [drawNode(victims, random), random.below(SHORT_MS)];
  return {
    kind: "application killed",
    needs: [`applications ${node.name}`],
    async run() {
      await node.killApplications();
      await victims.pause(ms);
      if (node.isBehind && await node.caughtUp()) node.trust();
      await node.startApplications();
    },
  };
}

/** In mid-transaction, too: then nobody else can write until it goes on. */
function freezeApplications(victims: Victims, random: Random): Fault {
  const [node, ms] = [drawNode(victims, random), between(random, 200, LONG_MS)];
  return {
    kind: "application frozen",
    needs: [`applications ${node.name}`],
    async run() {
      node.signalApplications("SIGSTOP");
      await victims.pause(ms);
      node.signalApplications("SIGCONT");
    },
  };
}

function restore(victims: Victims, random: Random): Fault {
  const [node, choice, ms] = [drawNode(victims, random), random.below(100), random.below(SHORT_MS)];
  const how = random.pick<Restore>(["down", "file", "backup"]);
  const everything = [`marmot ${node.name}`, `applications ${node.name}`, `database ${node.name}`];
  if (!node.hasCopy) return copy(victims, random);
  return {
    kind: how === "down" ? "older copy put back" : `older copy put back under Marmot (${how})`,
    needs: everything,
    async run() {
      if (how === "down") await node.endMarmot(choice % 2 === 0 ? "kill" : "stop");
      await node.killApplications();
      await node.restore(how, choice);
      await victims.pause(ms);
      // Marmot and the applications begin in either order.
      if (how === "down" && choice % 3 === 0) await node.startMarmot();
      await node.startApplications();
      if (how === "down" && choice % 3 !== 0) await node.startMarmot();
    },
  };
}

function copy(victims: Victims, random: Random): Fault {
  const node = drawNode(victims, random);
  return { kind: "copy taken", needs: [`database ${node.name}`], run: () => node.copy() };
}

/** One of them, or two: then there is no quorum. */
function brokersAway(
  how: "killed" | "frozen",
  count: 1 | 2,
  leave: (brokers: Brokers, place: number) => unknown,
  comeBack: (brokers: Brokers, place: number) => unknown,
): Draw {
  return (victims, random) => {
    const { brokers } = victims;
    const first = random.below(BROKERS);
    const places = Array.from({ length: count }, (_, i) => (first + i) % BROKERS);
    const ms = between(random, 500, LONG_MS);
    return {
      kind: `${count === 1 ? "broker" : "two brokers"} ${how}`,
      needs: places.map((place) => `broker ${place}`),
      async run() {
        await Promise.all(places.map((place) => leave(brokers, place)));
        await victims.pause(ms);
        await Promise.all(places.map((place) => comeBack(brokers, place)));
      },
    };
  };
}

const killBrokers = (count: 1 | 2): Draw =>
  brokersAway(
    "killed",
    count,
    (brokers, place) => brokers.kill(place),
    (brokers, place) => brokers.servers[place]!.restart(),
  );

const freezeBrokers = (count: 1 | 2): Draw =>
  brokersAway(
    "frozen",
    count,
    (brokers, place) => brokers.servers[place]!.freeze(),
    (brokers, place) => brokers.servers[place]!.thaw(),
  );

function partition(victims: Victims, random: Random): Fault {
  const links = drawLinks(victims, random);
  const [ms, stalls, cuts] = [between(random, 500, LONG_MS), random.below(2) === 0, random.below(2) === 0];
  return {
    kind: "partition",
    needs: linkNeeds(links),
    async run() {
      for (const link of links) {
        if (!stalls) link.refuse();
        else for (const way of ["there", "back"] as const) link.stall(way);
      }
      await victims.pause(ms);
      heal(links, cuts);
    },
  };
}

function oneWay(victims: Victims, random: Random): Fault {
  const links = drawLinks(victims, random);
  const [ms, way] = [between(random, 500, LONG_MS), random.pick<Way>(["there", "back"])];
  const cuts = random.below(2) === 0;
  return {
    kind: "one-way partition",
    needs: linkNeeds(links),
    async run() {
      for (const link of links) link.stall(way);
      await victims.pause(ms);
      heal(links, cuts);
    },
  };
}

function delay(victims: Victims, random: Random): Fault {
  const links = drawLinks(victims, random);
  const [ms, most] = [between(random, 1_000, LONG_MS), between(random, 20, 400)];
  return {
    kind: "delay",
    needs: linkNeeds(links),
    async run() {
      for (const link of links) link.delay(most / 2, most / 2);
      await victims.pause(ms);
      heal(links, false);
    },
  };
}

/** What TCP makes of lost packets: bytes that come late, and connections that end. */
function loss(victims: Victims, random: Random): Fault {
  const links = drawLinks(victims, random);
  const steps = Array.from({ length: LOSS_STEPS }, () => ({ ms: random.below(600), what: random.below(4) }));
  return {
    kind: "loss",
    needs: linkNeeds(links),
    async run() {
      for (const { ms, what } of steps) {
        if (what === 0) { for (const link of links) link.cut(); }
        else if (what === 1) { for (const link of links) link.stall("there"); }
        else if (what === 2) { for (const link of links) link.stall("back"); }
        else heal(links, false);
        await victims.pause(ms);
      }
      heal(links, false);
    },
  };
}

function heal(links: readonly Link[], cuts: boolean): void {
  for (const link of links) {
    // What waited is lost with its connection, or arrives late.
    if (cuts) link.cut();
    link.heal();
  }
}

function fullDisk(victims: Victims, random: Random): Fault {
  const ms = between(random, 500, LONG_MS);
  const node = victims.nodes.find(({ setup }) => setup.disk !== undefined);
  if (node === undefined) return { kind: "disk full: skipped", needs: [], run: () => Promise.resolve() };
  const { disk } = node.setup;
  return {
    kind: "disk full",
    needs: [`database ${node.name}`],
    async run() {
      await node.emptyWal();
      await disk!.fill();
      await victims.pause(ms);
      await disk!.free();
    },
  };
}

/** More often named, more often drawn. */
const DRAWS: readonly Draw[] = [
  ...[killMarmot, killMarmot, killMarmot, freezeMarmot, freezeMarmot],
  ...[killApplications, killApplications, killApplications, freezeApplications, freezeApplications],
  ...[copy, copy, restore, restore],
  ...[killBrokers(1), killBrokers(1), killBrokers(2), freezeBrokers(1), freezeBrokers(2)],
  ...[partition, partition, oneWay, oneWay, delay, loss],
  fullDisk,
];

export function drawFault(victims: Victims, random: Random): Fault {
  return random.pick(DRAWS)(victims, random);
}
