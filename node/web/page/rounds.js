// All decided rounds of a run, kept up to date, and what follows from them.

import { get } from "./api.js";

const PAGE = 500;

// History holds the rounds of one run.
export class History {
  #id; #rounds = [];

  constructor(id) { this.#id = id; }

  get rounds() { return this.#rounds; }

  // update fetches what is new. recent are the last rounds that the daemon
  // told with the run: if they do not continue what is here, the head moved to
  // another branch, and everything is fetched again.
  async update(recent, signal) {
    if (recent.length === 0) {
      this.#rounds = [];
      return;
    }
    const first = recent[0].round;
    const known = this.#rounds.filter((r) => r.round < first);
    const last = known.at(-1);
    if (first === 1 || (last && last.round === first - 1 && last.record === recent[0].parent)) {
      this.#rounds = [...known, ...recent];
      return;
    }
    this.#rounds = await this.#all(signal);
  }

  async #all(signal) {
    const all = [];
    for (let from = 1; ;) {
      const { rounds } = await get(`/runs/${encodeURIComponent(this.#id)}/rounds?from=${from}&limit=${PAGE}`, signal);
      all.push(...rounds);
      if (rounds.length < PAGE) return all;
      from = rounds.at(-1).round + 1;
    }
  }
}

const histories = new Map();

// historyOf is the history of a run, which all views of it share.
export function historyOf(id) {
  if (!histories.has(id)) histories.set(id, new History(id));
  return histories.get(id);
}

const sum = (list, f) => list.reduce((n, x) => n + f(x), 0);

// roundTokens are the tokens that contributed to one round.
export const roundTokens = (r) => sum(r.contributions, (c) => c.tokens);

// roundBytes are those of the deltas that contributed to one round.
export const roundBytes = (r) => sum(r.contributions, (c) => c.delta_bytes);

// best is the round with the lowest loss on held-out rows, or undefined.
export const best = (rounds) => rounds.reduce((b, r) => (r.eval_loss !== null && !(b && b.eval_loss <= r.eval_loss) ? r : b), undefined);

// smooth is the exponential moving average of points, with a correction for its
// beginning: the first is itself.
export function smooth(points, keep = 0.9) {
  let mean = 0, weight = 0;
  return points.map(([x, y]) => {
    mean = keep * mean + (1 - keep) * y;
    weight = keep * weight + (1 - keep);
    return [x, mean / weight, false];
  });
}

// standings are what the run remembers of each peer after the last round that
// says something about it.
export function standings(rounds) {
  const peers = new Map();
  for (const r of rounds) for (const s of r.standings ?? []) peers.set(s.peer, s);
  return peers;
}

// standingText says what a standing means for its peer.
export function standingText(s, round) {
  if (!s) return "not audited";
  if (s.banned_until && s.banned_until > round) return `banned until round ${s.banned_until}${s.reason ? `: ${s.reason}` : ""}`;
  if (s.owed) return `on probation: ${s.owed} useful delta${s.owed === 1 ? "" : "s"} until it counts`;
  return s.strikes >= 0.05 ? `counts; ${s.strikes.toFixed(1)} of 3 strikes` : "counts";
}

// contributions adds up the rounds by peer.
export function contributions(rounds) {
  const peers = new Map();
  const of = (id) => {
    if (!peers.has(id)) {
      peers.set(id, { peer: id, rounds: 0, tokens: 0, steps: 0, bytes: 0, weight: 0, share: 0, clipped: 0, refused: 0, reasons: new Map(), loss: null, last: 0 });
    }
    return peers.get(id);
  };
  let weight = 0;
  for (const r of rounds) {
    for (const c of r.contributions) {
      const p = of(c.peer);
      p.rounds++;
      p.tokens += c.tokens;
      p.steps += c.steps;
      p.bytes += c.delta_bytes;
      p.weight += c.weight;
      p.clipped += c.clip < 1 ? 1 : 0;
      p.loss = c.loss;
      p.last = r.round;
      weight += c.weight;
    }
    for (const x of r.refused) {
      const p = of(x.peer);
      p.refused++;
      p.reasons.set(x.reason, (p.reasons.get(x.reason) ?? 0) + 1);
    }
  }
  for (const p of peers.values()) p.share = weight ? p.weight / weight : 0;
  return [...peers.values()];
}

// refusals lists what the rounds left out, newest first.
export function refusals(rounds) {
  return rounds.flatMap((r) => r.refused.map((x) => ({ round: r.round, decided: r.decided, ...x }))).reverse();
}
