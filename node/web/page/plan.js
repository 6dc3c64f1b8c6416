// What a plan of a run came to.

import { el, badge, facts, foreign, ident, set } from "./dom.js";
import { table } from "./table.js";
import { amount, sample, verdict } from "./job.js";
import * as f from "./format.js";

// planPanel shows a plan.
export function planPanel() {
  const node = el("div", { hidden: true });
  const memory = table({
    caption: "Memory", file: "plan-memory", key: (d) => d.name, columns: [
      { title: "Device", value: (d) => d.name },
      { title: "Verdict", value: (d) => d.memory.verdict, cell: (d) => verdict(d.memory.verdict) },
      { title: "Needs", num: true, value: (d) => d.memory.need_bytes, cell: (d) => amount(d.memory.need_bytes, d.memory.have_bytes) },
    ],
  });
  const links = table({
    caption: "Deltas of a round by link", file: "plan-links", key: (l) => `${l.mbit} ${l.seats}`, columns: [
      { title: "Link", num: true, value: (l) => l.mbit, cell: (l) => `${l.mbit} Mbit/s` },
      { title: "Seats", num: true, value: (l) => l.seats, cell: (l) => f.count(l.seats) },
      { title: "Up", num: true, value: (l) => l.up_bytes, cell: (l) => f.bytes(l.up_bytes) },
      { title: "Down", num: true, value: (l) => l.down_bytes, cell: (l) => f.bytes(l.down_bytes) },
      { title: "Takes", num: true, value: (l) => l.seconds, cell: (l) => f.seconds(l.seconds) },
      { title: "Verdict", value: (l) => l.verdict, cell: (l) => verdict(l.verdict) },
      { title: "Busy", num: true, hint: "the part of the time that a seat computes whose steps fill the round", value: (l) => l.busy, cell: (l) => f.percent(l.busy) },
      { title: "Overlapped", num: true, hint: "the same, with steps of the next round while deltas travel", value: (l) => l.busy_overlapped, cell: (l) => f.percent(l.busy_overlapped) },
    ],
  });
  const swarms = table({
    caption: "By number of peers", file: "plan-swarms", key: (s) => String(s.peers), columns: [
      { title: "Peers", num: true, value: (s) => s.peers, cell: (s) => f.count(s.peers) },
      { title: "Rounds", num: true, value: (s) => s.rounds, cell: (s) => f.count(s.rounds) },
      { title: "Lasts at most", num: true, value: (s) => s.seconds, cell: (s) => f.seconds(s.seconds) },
      { title: "Expected", num: true, hint: "with machines like this one", value: (s) => (s.expected_rounds ? s.expected_s : null), cell: (s) => (s.expected_rounds ? f.seconds(s.expected_s) : "not timed") },
      { title: "Passes over the data", num: true, value: (s) => s.passes, cell: (s) => f.decimal(s.passes, 1) },
      { title: "Guarantee", value: (s) => s.guarantee.text, cell: (s) => foreign(s.guarantee.text) },
    ],
  });

  function show(p) {
    const t = p.data.train, e = p.data.eval;
    memory.update([...p.devices, { name: "this machine", memory: p.here.items[0] }]);
    links.update(p.traffic.links);
    swarms.update(p.swarms);
    const samples = (t.samples ?? []).map((s) => el("details", null, el("summary", null, foreign(s.place)), sample(s)));
    set(node, el("h3", null, "Plan of ", foreign(p.name)),
      p.refused.map((x) => el("p", { class: "problem" }, foreign(x.message), x.hint && [" – ", foreign(x.hint)])),
      p.warnings.map((w) => el("p", { class: "note" }, badge("warning", "calm"), " ", foreign(w))),
      facts([
        ["Model", el("span", null, ident(p.model.id), " ", foreign(p.model.name), ` ${f.compact(p.model.parameters)} parameters, ${f.compact(p.model.trained)} of them trained, licence `, foreign(p.model.licence || "not stated"))],
        ["Data", `${f.plural(t.rows, "row")} to train on, ${f.count(t.dropped)} left out, ${f.count(t.cut)} shortened; ${f.plural(e.rows, "row")} held out, ${f.count(e.leaks)} of them trained on too`],
        t.tokens && ["Counted tokens", f.count(t.tokens.counted)],
        ...[...(t.problems ?? []), ...(e.problems ?? [])].slice(0, 20).map((x) => [x.kind, foreign(`${x.place}: ${x.why}`)]),
        ["Expected", expected(p)],
        ["Length", `at most ${f.plural(p.length.rounds, "round")} of ${f.seconds(p.length.period_s)}: ${f.seconds(p.length.seconds)}`],
        ["A seat trains on", `up to ${f.plural(p.length.samples_per_seat, "row")}, ${f.count(p.length.tokens_per_seat)} counted tokens, in each round`],
        p.eval.rows > 0 && ["Held-out loss", `after a round ${p.eval.peers ? `${f.plural(p.eval.peers, "peer")} drawn by lot ${p.eval.peers === 1 ? "measures" : "measure"} it` : "each peer measures it"} on ${f.plural(p.eval.rows, "row")}: ${f.percent(p.eval.share)} of the time that it trains`],
      ]), samples.length > 0 && el("h3", null, "Samples; what is marked counts"), samples, memory.node, links.node,
      el("p", { class: "note" }, `Busy: the part of the time that a seat computes whose steps fill the round. Overlapped: the same with ${f.plural(p.traffic.overlap_steps, "step")} of the next round while deltas travel, ${p.traffic.overlaps ? "as the file asks for" : `which inner.overlap_steps = ${p.traffic.overlap_steps} would ask for`}.`),
      swarms.node);
    node.hidden = false;
  }

  // expected says how long the run lasts at the pace of the daemon's machine, if that
  // was timed.
  function expected({ pace, swarms: [s] }) {
    if (!s?.expected_rounds) return pace.why ? foreign(`not timed: ${pace.why}`) : "not timed yet; “Time this machine” takes some steps";
    return `about ${f.seconds(s.expected_s)} at the pace of this machine, if ${s.peers === 1 ? "it is alone" : `${f.plural(s.peers, "peer")} like it take part`}: ${f.plural(s.expected_rounds, "round")} of ${f.seconds(s.expected_round_s)}, in which a step takes ${f.seconds(pace.step_s)}, as timed ${f.ago(pace.timed)}`;
  }

  return { node, show, hide() { node.hidden = true; } };
}
