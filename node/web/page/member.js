// One peer of a run.

import { get } from "./api.js";
import { el, copyable, facts, foreign, ident, badge, set } from "./dom.js";
import { table } from "./table.js";
import { chart } from "./chart.js";
import { allRounds, standingText } from "./rounds.js";
import { formula } from "./members.js";
import { runPages } from "./pages.js";
import * as f from "./format.js";

export function memberView(id, peer) {
  let known = []; // rounds, those that were asked for
  const MOST = 500; // of them
  const head = el("div", { class: "head" });
  const about = el("div"), part = el("p", { class: "note", hidden: true });
  const file = `${id.slice(0, 14)}-${peer.slice(0, 14)}`;
  const byRound = { title: "round", whole: true, text: (v) => f.count(v) };
  const tokens = chart({ title: "Tokens per round", unit: "tokens", y: f.count, tick: (v) => f.compact(v, 1000), file: `${file}-tokens` });
  const worth = chart({ title: "Worth and reputation", unit: "share of the others'", y: (v) => f.decimal(v, 3), tick: f.short, file: `${file}-worth` });
  const credits = chart({ title: "Credits", unit: "audited tokens", y: f.count, tick: (v) => f.compact(v, 1000), file: `${file}-credits` });
  const strikes = chart({ title: "Strikes", unit: "strikes", y: (v) => f.decimal(v, 2), tick: f.short, file: `${file}-strikes` });
  const link = (n) => el("a", { href: `#/runs/${encodeURIComponent(id)}/rounds/${n}` }, String(n));
  const list = table({
    caption: "Its deltas", file, empty: "No delta of it is in a decided round.", key: (x) => x.round, sort: -1, limit: 50,
    columns: [
      { title: "Round", num: true, value: (x) => x.round, cell: (x) => link(x.round) },
      { title: "Result", value: (x) => x.result, cell: (x) => badge(x.result, x.result === "entered" ? "good" : x.result === "refused" ? "bad" : "calm") },
      { title: "Why", value: (x) => x.why, cell: (x) => foreign(x.why) },
      { title: "Tokens", num: true, value: (x) => x.tokens, cell: (x) => f.count(x.tokens) },
      { title: "Steps", num: true, value: (x) => x.steps, cell: (x) => f.count(x.steps) },
      { title: "Weight", num: true, value: (x) => x.weight, cell: (x) => f.count(x.weight) },
      { title: "Clip", num: true, value: (x) => x.clip, cell: (x) => f.decimal(x.clip, 3) },
      { title: "Loss", num: true, hint: "as it says itself", value: (x) => x.loss, cell: (x) => f.loss(x.loss) },
      { title: "Verdict", value: (x) => x.verdict ?? "", cell: (x) => x.verdict ?? "not judged" },
      { title: "Gain", num: true, hint: "nats that the loss falls by a fifth of the delta", value: (x) => x.gain, cell: (x) => (x.gain === undefined ? "–" : x.gain.toExponential(2)) },
      { title: "Worth", num: true, value: (x) => x.worth, cell: (x) => f.decimal(x.worth, 3) },
      { title: "Auditors", num: true, value: (x) => x.auditors, cell: (x) => f.count(x.auditors) },
      { title: "Delta size", num: true, value: (x) => x.bytes, cell: (x) => f.bytes(x.bytes) },
    ],
  });
  const card = (title, ...children) => el("section", { class: "card" }, el("h2", null, title), ...children);

  // deltas are what the rounds say of its deltas; verdicts are in the round
  // after.
  function deltas(rounds) {
    const out = new Map();
    for (const r of rounds) {
      for (const c of r.contributions) {
        if (c.peer === peer) out.set(r.round, { round: r.round, result: c.weight ? "entered" : "no weight", why: c.reason ?? "", tokens: c.tokens, steps: c.steps, weight: c.weight, clip: c.clip, loss: c.loss, bytes: c.delta_bytes });
      }
      for (const x of r.refused) {
        if (x.peer === peer) out.set(r.round, { round: r.round, result: "refused", why: `${x.reason}: ${f.reason(x.reason)}` });
      }
      for (const j of r.judged ?? []) {
        const d = j.peer === peer && out.get(r.round - 1);
        if (d) Object.assign(d, { verdict: j.verdict, gain: j.gain, worth: j.worth, auditors: j.auditors });
      }
    }
    return [...out.values()];
  }

  // follow keeps the last rounds of the run, with what is of this peer.
  let sums = null;
  async function follow(run, signal) {
    const last = known.at(-1), recent = run.rounds;
    const after = recent.findIndex((r) => r.record === last?.record);
    const from = after >= 0 ? last.round - 1 : Math.max(1, run.round - MOST + 1); // verdicts and what is taken back come a round later
    const fresh = await allRounds(id, Math.max(1, from), run.round, { peer, signal });
    known = [...known.filter((r) => after >= 0 && r.round < from), ...fresh].slice(-MOST);
    if (known.length) {
      part.hidden = known[0].round <= 1;
      part.textContent = `Rounds ${f.count(known[0].round)} to ${f.count(known.at(-1).round)}.`;
    }
  }

  return {
    title: "Peer",
    node: el("div", null, head, runPages(id, "peer"), card("About", about), part,
      el("div", { class: "grid" }, card("Tokens per round", tokens.node), card("Worth and reputation", worth.node), card("Credits", credits.node), card("Strikes", strikes.node)),
      el("p", { class: "note" }, formula), card("Its deltas", list.node)),
    events: (e) => !e.run || e.run === id,
    async refresh(signal) {
      const me = (await get("/status", signal)).peer;
      const run = await get(`/runs/${encodeURIComponent(id)}`, signal);
      if (!sums || sums.round < sums.head) sums = await get(`/runs/${encodeURIComponent(id)}/peers`, signal);
      await follow(run, signal);
      if (signal.aborted) return;
      const rounds = known, all = deltas(rounds);
      const m = run.members.find((x) => x.peer === peer), seat = run.next_seats.find((x) => x.peer === peer), s = rounds.findLast((r) => r.standings?.some((x) => x.peer === peer))?.standings.find((x) => x.peer === peer) ?? sums.peers.find((x) => x.peer === peer)?.standing;
      document.title = `${peer.slice(0, 14)} in ${run.name} – moot`;
      set(head, el("h1", { tabindex: -1 }, "Peer ", ident(peer), peer === me && " (you)", " in ", foreign(run.name || "a run")));
      set(about, facts([
        ["Peer ID", copyable(peer, "the peer ID")],
        ["Standing", standingText(s, run.round)],
        ["Credits", s ? `${f.count(s.work)} audited tokens; ${f.count(s.pace)} in a round` : "none yet"],
        ["Seat", seat ? `since round ${seat.since}, ${f.plural(seat.missed, "round")} missed in a row${seat.trainee ? "; it trains and does not vote yet" : ""}` : "none"],
        ["Phase", m ? el("span", null, foreign(m.phase), `, round ${f.count(m.round)}, ${f.count(m.tokens_per_second)} tokens/s, seen ${f.ago(m.seen)}`) : "not heard of in the last two minutes"],
        ["Device", foreign(m?.device ?? "not known")], ["Program", foreign(m?.agent ?? "not known")],
      ]));
      tokens.update({ x: byRound, series: [{ name: "tokens", kind: "bar", plain: "with weight", alt: "without", points: all.filter((d) => d.tokens).map((d) => [d.round, d.tokens, d.weight === 0]) }] });
      const stands = rounds.flatMap((r) => (r.standings ?? []).filter((x) => x.peer === peer).map((x) => ({ round: r.round, ...x })));
      worth.update({ x: byRound, zero: true, series: [
        { name: "worth of a delta", kind: "mark", tone: 1, points: all.filter((d) => d.worth !== undefined).map((d) => [d.round, d.worth, d.verdict]) },
        { name: "reputation", kind: "step", tone: 0, points: stands.map((x) => [x.round, x.worth, ""]) },
      ] });
      credits.update({ x: byRound, zero: true, series: [{ name: "credits", kind: "step", points: stands.map((x) => [x.round, x.work, ""]) }] });
      strikes.update({ x: byRound, zero: true, series: [{ name: "strikes", kind: "step", points: stands.map((x) => [x.round, x.strikes, x.banned_until ? `banned until round ${x.banned_until}` : ""]) }] });
      list.update(all);
    },
  };
}
