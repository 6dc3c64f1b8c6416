// One decided round.

import { get, APIError } from "./api.js";
import { el, badge, copyable, facts, foreign, ident, peer, set } from "./dom.js";
import { table } from "./table.js";
import { memberLink } from "./members.js";
import * as f from "./format.js";

export function roundView(id, n) {
  const head = el("div", { class: "head" });
  const lead = el("p", { class: "lead" });
  const about = el("div", { class: "card" });
  let weight = 0, me = "";
  const who = table({
    caption: `Contributions to round ${n}`, file: `round-${n}-contributions`, empty: "Nobody contributed.", key: (c) => c.peer,
    columns: [
      { title: "Peer", value: (c) => c.peer, cell: (c) => memberLink(id, c.peer, me) },
      { title: "Weight", num: true, value: (c) => c.weight, cell: (c) => f.count(c.weight) },
      { title: "Share", num: true, value: (c) => (weight ? c.weight / weight : 0), cell: (c) => f.percent(weight ? c.weight / weight : 0) },
      { title: "Clip", num: true, hint: "factor; 1 when not clipped", value: (c) => c.clip, cell: (c) => (c.clip >= 1 ? "1 (not clipped)" : f.decimal(c.clip, 3)) },
      { title: "Tokens", num: true, value: (c) => c.tokens, cell: (c) => f.count(c.tokens) },
      { title: "Steps", num: true, value: (c) => c.steps, cell: (c) => f.count(c.steps) },
      { title: "Loss", num: true, hint: "mean training loss, as it says itself", value: (c) => c.loss, cell: (c) => f.loss(c.loss) },
      { title: "Note", hint: "why it counts for nothing", value: (c) => c.reason ?? "", cell: (c) => foreign(c.reason || "counts") },
      { title: "Delta size", num: true, value: (c) => c.delta_bytes, cell: (c) => f.bytes(c.delta_bytes) },
      { title: "Delta", value: (c) => c.delta, cell: (c) => ident(c.delta) },
      { title: "Commit", value: (c) => c.commit, cell: (c) => ident(c.commit) },
    ],
  });
  const refused = table({
    caption: `Refused in round ${n}`, file: `round-${n}-refused`, empty: "Nothing was refused.", key: (x) => x.peer,
    columns: [
      { title: "Peer", value: (x) => x.peer, cell: (x) => peer(x.peer, me) },
      { title: "Reason", value: (x) => x.reason, cell: (x) => badge(x.reason, "bad") },
      { title: "In words", value: (x) => f.reason(x.reason) },
      { title: "Commit", value: (x) => x.commit, cell: (x) => ident(x.commit) },
    ],
  });
  const judged = table({
    caption: `Judged in round ${n}`, file: `round-${n}-judged`, empty: "Nothing was judged.", key: (x) => x.peer,
    columns: [
      { title: "Peer", value: (x) => x.peer, cell: (x) => memberLink(id, x.peer, me) },
      { title: "Verdict", value: (x) => x.verdict, cell: (x) => el("span", null, badge(x.verdict, { useful: "good", damaging: "bad", useless: "calm" }[x.verdict] ?? "quiet"), x.taken_back && " taken back") },
      { title: "Gain", num: true, hint: "nats that the loss falls by a fifth of the delta", value: (x) => x.gain, cell: (x) => x.gain.toExponential(2) },
      { title: "Worth", num: true, value: (x) => x.worth, cell: (x) => f.decimal(x.worth, 3) },
      { title: "Auditors", num: true, value: (x) => x.auditors, cell: (x) => f.count(x.auditors) },
    ],
  });
  const base = `#/runs/${encodeURIComponent(id)}`;
  const after = el("a", { href: `${base}/rounds/${n + 1}` }, `round ${n + 1} ›`);
  const peers = (list) => (list?.length ? list.map((p, i) => [i ? ", " : "", peer(p, me)]) : "nobody");

  return {
    title: `Round ${n}`,
    node: el("div", null, head, lead,
      el("nav", { class: "pages", "aria-label": "Rounds" }, n > 1 && el("a", { href: `${base}/rounds/${n - 1}` }, `‹ round ${n - 1}`), el("a", { href: base }, "the run"), after),
      el("section", { class: "card" }, el("h2", null, "Who contributed"), who.node),
      el("section", { class: "card" }, el("h2", null, "What was refused"), refused.node),
      el("section", { class: "card" }, el("h2", null, `Verdicts on deltas of round ${n - 1}`), judged.node),
      el("h2", { class: "hidden" }, "About this round"), about),
    events: (e) => e.type === "round.done" || e.type === "eval.done",
    async refresh(signal) {
      me ||= (await get("/status", signal)).peer;
      const run = await get(`/runs/${encodeURIComponent(id)}`, signal);
      let r;
      try {
        r = await get(`/runs/${encodeURIComponent(id)}/rounds/${n}`, signal);
      } catch (err) {
        if (!(err instanceof APIError) || err.status !== 404) throw err;
      }
      set(head, el("h1", { tabindex: -1 }, `Round ${n} of `, foreign(run.name)), r && badge(r.certified ? "certified" : "provisional", r.certified ? "good" : "calm"), r?.final && badge("the last one", "calm"));
      after.hidden = !r || r.final; // there is none, or will be none
      if (!r) {
        set(lead, `This round is not decided yet; the last one is ${run.round}.`);
        return;
      }
      weight = r.contributions.reduce((s, c) => s + c.weight, 0);
      set(lead, r.certified
        ? `${f.plural(r.votes, "vote")} of ${f.plural(r.seats, "seat")} were for this result; ${f.count(r.quorum)} were needed.`
        : `Not enough seats voted for one result: ${f.count(r.votes)} of the ${f.count(r.quorum)} needed. Training goes on from it, and another branch may still win.`);
      who.update(r.contributions);
      refused.update(r.refused);
      judged.update(r.judged ?? []);
      set(about, facts([
        ["Decided", f.date(r.decided)], ["Took", f.seconds(r.seconds)],
        ["Attempt", String(r.attempt)], ["Proposer", peer(r.proposer, me)],
        ["Votes", `${r.votes}, quorum ${r.quorum}, seats ${r.seats}`],
        ["Train loss", nats(r.train_loss, "")], ["Eval loss", r.eval_loss === null ? "not measured" : `${nats(r.eval_loss, "")}, perplexity ${f.perplexity(r.eval_loss)}, ${r.median_loss != null ? "the median of what peers drawn by lot measured" : "measured by this node"}`],
        r.median_loss != null && r.own_loss != null && ["Eval loss, own", nats(r.own_loss, ", measured by this node")],
        ["Tokens so far", f.count(r.tokens)], ["Trained rounds", f.count(r.trained_rounds)],
        r.tempo && ["Steps", `at most ${f.count(r.tempo.steps)} within ${f.seconds(r.tempo.deadline_s)}${r.tempo.kappa === null ? "" : `, kappa ${f.short(r.tempo.kappa)}`}; in the next round ${f.count(r.tempo.next_steps)} within ${f.seconds(r.tempo.next_deadline_s)}`],
        r.orders?.length && ["Orders", el("ul", { class: "plain" }, r.orders.map((o) => el("li", null, peer(o.peer, me), ` ordered: ${o.action}`, o.rounds ? ` rounds ${f.count(o.rounds)}` : "", o.tokens ? ` tokens ${f.count(o.tokens)}` : "", o.rate ? ` rate ${f.short(o.rate)}` : "", o.note && " – ", o.note && foreign(o.note))))],
        r.went_back && ["Went back", `to the state after round ${r.went_back.round}, whose loss ${f.loss(r.went_back.loss)} was the lowest: it was too high for too long`],
        r.ended && ["Ended", r.ended],
        ["New seats", peers(r.joined)], ["Seats lost", peers(r.left)],
        ["Record", copyable(r.record, "the record's CID")], ["Parent", copyable(r.parent, "the parent's CID")], ["State", copyable(r.state, "the state's CID")],
      ]));
    },
  };
}

const nats = (v, by) => (v === null ? "not measured" : `${f.loss(v)} nats per token${by}`);
