// All runs that this node knows.

import { get } from "./api.js";
import { el, badge, foreign, ident, set } from "./dom.js";
import { table } from "./table.js";
import * as f from "./format.js";

export const runLink = (r) => el("a", { href: `#/runs/${encodeURIComponent(r.id)}` }, foreign(r.name || "(no name yet)"));

// progress is a round and of how many.
const progress = (r) => (r.max_rounds ? `${f.count(r.trained_rounds)} of ${f.count(r.max_rounds)}` : f.count(r.trained_rounds));

export function runsView() {
  const line = el("p", { class: "lead" });
  const runs = table({
    caption: "Runs", file: "runs", empty: "This node knows no run yet. “Join or launch” above, “moot join” and “moot launch” change that; “moot demo” shows one.",
    key: (r) => r.id,
    columns: [
      { title: "Run", value: (r) => r.name, cell: runLink },
      { title: "State", value: (r) => r.state, cell: (r) => badge(r.state, f.stateKind(r.state)) },
      { title: "Why", value: (r) => r.why ?? "", cell: (r) => foreign(r.why ?? "") },
      { title: "Trained rounds", num: true, value: (r) => r.trained_rounds, cell: progress },
      { title: "Tokens", num: true, value: (r) => r.tokens, cell: (r) => f.compact(r.tokens) },
      { title: "Train loss", num: true, value: (r) => r.train_loss, cell: (r) => f.loss(r.train_loss) },
      { title: "Eval loss", num: true, value: (r) => r.eval_loss, cell: (r) => f.loss(r.eval_loss) },
      { title: "Seats", num: true, value: (r) => r.seats, cell: (r) => `${f.count(r.seats)} of ${f.count(r.max_seats)}` },
      { title: "Guarantee", value: (r) => r.guarantee.level, cell: (r) => el("span", { title: r.guarantee.text }, r.guarantee.level) },
      { title: "Created", value: (r) => r.created, cell: (r) => f.date(r.created) },
      { title: "ID", value: (r) => r.id, cell: (r) => ident(r.id) },
    ],
    sort: -10,
  });
  return {
    title: "Runs",
    node: el("div", null, el("h1", { tabindex: -1 }, "Runs"), line, el("div", { class: "card" }, runs.node)),
    events: (e) => ["run.state", "round.done", "round.phase", "eval.done", "peer.joined", "peer.left", "node.state"].includes(e.type),
    async refresh(signal) {
      const [status, list] = await Promise.all([get("/status", signal), get("/runs", signal)]);
      set(line, badge(status.state, f.stateKind(status.state)), " ", foreign(status.why || "this node is training"), `; ${f.plural(status.peers, "peer")} connected.`);
      runs.update(list.runs);
    },
  };
}
