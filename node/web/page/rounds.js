// The rounds of a run in short, kept up to date, and what follows from them: of a
// long run those that stand out, and the last ones.

import { get } from "./api.js";

const POINTS = 1000; // that are asked for
let self = ""; // the peer that this page is of

// History holds the rounds of one run.
export class History {
  #id; #rounds = [];
  // read and head are up to which round was read, and which is the last: of a long
  // run older rounds take the daemon a moment.
  read = 0; head = 0;
  // whole: no round was left out.
  whole = true;

  constructor(id) { this.#id = id; }

  get rounds() { return this.#rounds; }
  get behind() { return this.read < this.head; }

  // update fetches what is new. recent are the last rounds that the daemon
  // told with the run: if they do not continue what is here, the head moved to
  // another branch, and everything is fetched again.
  async update(recent, signal) {
    if (recent.length === 0) {
      this.#rounds = [];
      this.read = this.head = 0;
      return;
    }
    self ||= (await get("/status", signal)).peer;
    const first = recent[0], newest = recent.at(-1).round;
    const before = () => this.#rounds.filter((r) => r.round < first.round);
    let known = before();
    const last = known.at(-1);
    const follows = first.round === 1 || (last && last.round === first.round - 1 && last.record === first.parent);
    let fetched = false;
    if (!follows || this.behind) {
      const s = await get(`/runs/${encodeURIComponent(this.#id)}/series?points=${POINTS}`, signal);
      this.#rounds = s.points;
      this.read = s.round;
      this.head = s.head;
      this.whole = s.rounds === s.points.length;
      if (this.behind && s.round < first.round - 1) return;
      known = before();
      fetched = true;
    }
    const later = fetched ? this.#rounds.filter((r) => r.round > newest) : []; // they were decided in between
    this.#rounds = [...known, ...recent.map(point), ...later];
    this.#mean();
    this.read = this.head = this.#rounds.at(-1).round;
    if (this.#rounds.length > 3 * POINTS) this.read = 0; // those that stand out are asked for anew
  }

  // mean continues the running mean of the losses.
  #mean() {
    let mean = null, n = 0;
    for (const r of this.#rounds) {
      if (r.train_loss === null) continue;
      n++;
      if (!this.whole && r.train_mean !== undefined) mean = r.train_mean;
      else {
        const before = 1 - KEEP ** (n - 1), now = KEEP * before + (1 - KEEP);
        mean = mean === null ? r.train_loss : (KEEP * before * mean + (1 - KEEP) * r.train_loss) / now;
        r.train_mean = mean;
      }
    }
  }
}

const KEEP = 0.9; // of the running mean, in each round

// point is a round in short; its running mean follows from those before.
function point(r) {
  return {
    round: r.round, record: r.record, decided: r.decided, seconds: r.seconds, certified: r.certified, seats: r.seats,
    deltas: r.contributions.length, refused: r.refused.length, reasons: [...new Set(r.refused.map((x) => x.reason))],
    bytes: sum(r.contributions, (c) => c.delta_bytes), round_tokens: sum(r.contributions, (c) => c.tokens),
    own_tokens: r.contributions.find((c) => c.peer === self)?.tokens, tokens: r.tokens, train_loss: r.train_loss, eval_loss: r.eval_loss,
  };
}

// allRounds fetches rounds as they are, page by page; with peer what is of one
// peer. progress is told how many are here.
export async function allRounds(id, from, to, { peer, signal, progress } = {}) {
  const all = [];
  while (from <= to) {
    const limit = Math.min(PAGE, to - from + 1);
    const { rounds } = await get(`/runs/${encodeURIComponent(id)}/rounds?from=${from}&limit=${limit}${peer ? `&peer=${encodeURIComponent(peer)}` : ""}`, signal);
    all.push(...rounds.filter((r) => r.round <= to));
    progress?.(all.length);
    if (rounds.length < limit) break;
    from = rounds.at(-1).round + 1;
  }
  return all;
}

const PAGE = 200;

const histories = new Map();

// historyOf is the history of a run, which all views of it share.
export function historyOf(id) {
  if (!histories.has(id)) histories.set(id, new History(id));
  return histories.get(id);
}

const sum = (list, f) => list.reduce((n, x) => n + f(x), 0);

// best is the round with the lowest loss on held-out rows, or undefined.
export const best = (rounds) => rounds.reduce((b, r) => (r.eval_loss !== null && !(b && b.eval_loss <= r.eval_loss) ? r : b), undefined);

// standingText says what a standing means for its peer.
export function standingText(s, round) {
  if (!s) return "not audited";
  if (s.banned_until && s.banned_until > round) return `banned until round ${s.banned_until}${s.reason ? `: ${s.reason}` : ""}`;
  if (s.owed) return `on probation: ${s.owed} useful delta${s.owed === 1 ? "" : "s"} until it counts`;
  return s.strikes >= 0.05 ? `counts; ${s.strikes.toFixed(1)} of 3 strikes` : "counts";
}
