// The peers of a run: what each contributed, and what the run thinks of it.

import { get } from "./api.js";
import { el, foreign, ident, set } from "./dom.js";
import { table } from "./table.js";
import { best, historyOf, standingText } from "./rounds.js";
import { runPages } from "./pages.js";
import * as f from "./format.js";

// memberLink leads to the page of a peer.
export const memberLink = (run, id, me) => el("span", { class: "id" },
  el("a", { href: `#/runs/${encodeURIComponent(run)}/peers/${encodeURIComponent(id)}` }, ident(id)), id === me && " (you)");

// formula says how credits come about; see proto/README.md, Audits.
export const formula = "Credits are audited tokens. For each delta that auditors judged: min(its tokens, 2 × the median of the round) × its worth. Worth, from 0 to 1, is by how much "
  + "the delta lowers the loss on held-out rows for each token, beside the other deltas of the round; 0 if it does harm. Reputation is the mean worth of a peer, fading by a quarter with each verdict.";

export function membersView(id) {
  const history = historyOf(id);
  const head = el("div", { class: "head" });
  const lead = el("p", { class: "lead" });
  let me = "", run = null, seats = new Map(), members = new Map();
  const filter = el("input", { type: "search", "aria-label": "Filter by peer, standing, device or program", placeholder: "filter" });
  const stand = (p) => p.standing;
  const peers = table({
    caption: "Peers of the run", file: `${id.slice(0, 14)}-peers`, empty: "No peer is known yet.", key: (p) => p.peer, sort: -3,
    columns: [
      { title: "Peer", value: (p) => p.peer, cell: (p) => memberLink(id, p.peer, me) },
      { title: "Seat", value: (p) => seat(p), cell: (p) => seat(p) },
      { title: "Credits", num: true, hint: "audited tokens; the formula is below", value: (p) => stand(p)?.work ?? null, cell: (p) => f.count(stand(p)?.work) },
      { title: "Tokens", num: true, value: (p) => p.tokens, cell: (p) => f.count(p.tokens) },
      { title: "Entered", num: true, hint: "rounds with a delta of it", value: (p) => p.rounds, cell: (p) => f.count(p.rounds) },
      { title: "Refused", num: true, value: (p) => p.refused, cell: (p) => f.count(p.refused) },
      { title: "Share of weight", num: true, hint: "its part of all weight that entered the rounds", value: (p) => p.share, cell: (p) => f.percent(p.share) },
      { title: "Reputation", num: true, hint: "mean worth of its deltas, fading", value: (p) => stand(p)?.worth ?? null, cell: (p) => f.decimal(stand(p)?.worth) },
      { title: "Strikes", num: true, hint: "damaging deltas, fading; 3 are a ban", value: (p) => stand(p)?.strikes ?? null, cell: (p) => f.decimal(stand(p)?.strikes, 1) },
      { title: "Standing", value: (p) => standingText(stand(p), run?.round), cell: (p) => standingText(stand(p), run?.round) },
      { title: "Tokens/s", num: true, hint: "as it says itself", value: (p) => members.get(p.peer)?.tokens_per_second ?? null, cell: (p) => f.count(members.get(p.peer)?.tokens_per_second) },
      { title: "Sent", num: true, value: (p) => p.bytes, cell: (p) => f.bytes(p.bytes) },
      { title: "Last round", num: true, value: (p) => p.last || null, cell: (p) => (p.last ? el("a", { href: `#/runs/${encodeURIComponent(id)}/rounds/${p.last}` }, String(p.last)) : "–") },
      { title: "Phase", value: (p) => members.get(p.peer)?.phase ?? "", cell: (p) => foreign(members.get(p.peer)?.phase ?? "–") },
      { title: "Device", value: (p) => members.get(p.peer)?.device ?? "", cell: (p) => foreign(members.get(p.peer)?.device ?? "–") },
      { title: "Program", value: (p) => members.get(p.peer)?.agent ?? "", cell: (p) => foreign(members.get(p.peer)?.agent ?? "–") },
    ],
  });
  filter.addEventListener("input", show);

  function seat(p) {
    const s = seats.get(p.peer);
    if (!s) return members.has(p.peer) ? "none, heard of" : "none";
    return s.trainee ? "trains" : s.fresh ? "fresh" : "full";
  }

  let all = [];
  function show() {
    const want = filter.value.trim().toLowerCase();
    const text = (p) => [p.peer, seat(p), standingText(stand(p), run?.round), members.get(p.peer)?.device, members.get(p.peer)?.agent].join(" ").toLowerCase();
    peers.update(want ? all.filter((p) => text(p).includes(want)) : all);
  }

  return {
    title: "Peers of a run",
    node: el("div", null, head, runPages(id, "peers"), lead,
      el("section", { class: "card" }, el("h2", null, "Contributions and reputation"), el("p", { class: "tools" }, filter), peers.node,
        el("p", { class: "note" }, formula), el("p", { class: "note" }, "Device, program and speed are what peers say of themselves; nobody vouches for them."))),
    events: (e) => !e.run || e.run === id,
    async refresh(signal) {
      me ||= (await get("/status", signal)).peer;
      run = await get(`/runs/${encodeURIComponent(id)}`, signal);
      const [totals] = await Promise.all([get(`/runs/${encodeURIComponent(id)}/peers`, signal), history.update(run.rounds, signal)]);
      if (signal.aborted) return;
      this.every = totals.round < totals.head ? 1500 : undefined;
      document.title = `Peers of ${run.name} – moot`;
      set(head, el("h1", { tabindex: -1 }, "Peers of ", foreign(run.name || "a run")));
      seats = new Map(run.next_seats.map((s) => [s.peer, s]));
      members = new Map(run.members.map((m) => [m.peer, m]));
      const list = [...totals.peers];
      const known = new Set(list.map((p) => p.peer));
      for (const peer of [...seats.keys(), ...members.keys()]) {
        if (!known.has(peer)) list.push({ peer, rounds: 0, tokens: 0, steps: 0, bytes: 0, weight: 0, share: 0, clipped: 0, refused: 0, loss: null, last: 0 });
        known.add(peer);
      }
      all = list;
      const b = best(history.rounds);
      set(lead, `${f.plural(Math.max(all.length, totals.known), "peer")}${totals.known > totals.peers.length ? ` (those with most tokens are listed)` : ""}${totals.round < totals.head ? `, of ${f.count(totals.round)} of ${f.count(totals.head)} rounds so far` : ""}: ${seats.size} with a seat in round ${f.count(run.round + 1)}, ${members.size} heard of in the last two minutes.`, b ? ` The lowest loss on held-out rows was ${f.loss(b.eval_loss)}, after round ${b.round}.` : "");
      show();
    },
  };
}
