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

const sum = (list, f) => list.reduce((n, x) => n + f(x), 0);

// roundTokens are the tokens that contributed to one round.
export const roundTokens = (r) => sum(r.contributions, (c) => c.tokens);

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
