// This node: what it does and why, and what it holds.

import { get } from "./api.js";
import { el, badge, copyable, facts, foreign, ident, set } from "./dom.js";
import { table } from "./table.js";
import { runLink } from "./runs.js";
import * as f from "./format.js";

const notes = (list) => el("span", null, (list ?? []).map((w, i) => [i ? "; " : "", foreign(w)]));

export function nodeView() {
  const state = el("div", { class: "card state" });
  const about = el("div");
  const traffic = el("div");
  const runs = table({
    caption: "Runs of this node", empty: "This node is in no run.", key: (r) => r.id,
    columns: [
      { title: "Run", value: (r) => r.name, cell: runLink },
      { title: "State", value: (r) => r.state, cell: (r) => badge(r.state, f.stateKind(r.state)) },
      { title: "Why", value: (r) => r.why ?? "", cell: (r) => foreign(r.why ?? "") },
    ],
  });
  const models = table({
    caption: "Models", file: "models", empty: "No model is here. “moot model import” stores one; a run brings its own.", key: (m) => m.id, sort: 0,
    columns: [
      { title: "Model", value: (m) => m.name, cell: (m) => foreign(m.name) },
      { title: "Kind", value: (m) => m.type, cell: (m) => foreign(m.type) },
      { title: "Parameters", num: true, value: (m) => m.parameters, cell: (m) => f.compact(m.parameters) },
      { title: "Size", num: true, value: (m) => m.bytes, cell: (m) => f.bytes(m.bytes) },
      { title: "Licence", value: (m) => m.licence ?? "", cell: (m) => foreign(m.licence || "not stated") },
      { title: "Trainable", value: (m) => (m.trainable ? "yes" : "no"), cell: (m) => (m.trainable ? "yes" : el("span", null, "no: ", foreign(m.why))) },
      { title: "Notes", value: (m) => (m.warnings ?? []).join("; "), cell: (m) => notes(m.warnings) },
      { title: "Here since", value: (m) => m.imported, cell: (m) => f.date(m.imported) },
      { title: "ID", value: (m) => m.id, cell: (m) => ident(m.id) },
    ],
  });
  const data = table({
    caption: "Data sets", file: "data-sets", empty: "No data set is here. “moot data import” stores one; a run brings its own.", key: (d) => d.id, sort: 0,
    columns: [
      { title: "Data set", value: (d) => d.name, cell: (d) => foreign(d.name) },
      { title: "Format", value: (d) => d.format ?? "", cell: (d) => foreign(d.format || "–") },
      { title: "Template", value: (d) => d.template, cell: (d) => foreign(d.template) },
      { title: "Rows", num: true, value: (d) => d.train_rows, cell: (d) => f.count(d.train_rows) },
      { title: "Held out", num: true, value: (d) => d.eval_rows, cell: (d) => f.count(d.eval_rows) },
      { title: "Dropped", num: true, value: (d) => d.dropped_rows, cell: (d) => f.count(d.dropped_rows) },
      { title: "Size", num: true, value: (d) => d.bytes, cell: (d) => f.bytes(d.bytes) },
      { title: "Licence", value: (d) => d.licence ?? "", cell: (d) => foreign(d.licence || "not stated") },
      { title: "Source", value: (d) => d.source ?? "", cell: (d) => foreign(d.source || "not stated") },
      { title: "Notes", value: (d) => (d.warnings ?? []).join("; "), cell: (d) => notes(d.warnings) },
      { title: "Here since", value: (d) => d.imported, cell: (d) => f.date(d.imported) },
      { title: "ID", value: (d) => d.id, cell: (d) => ident(d.id) },
    ],
  });
  const card = (title, ...children) => el("section", { class: "card" }, el("h2", null, title), ...children);
  return {
    title: "My node",
    node: el("div", null, el("h1", { tabindex: -1 }, "My node"), state,
      el("div", { class: "grid" }, card("About", about), card("Traffic since the start", traffic)),
      card("Runs", runs.node), card("Models", models.node), card("Data sets", data.node)),
    events: (e) => ["node.state", "run.state", "peer.joined", "peer.left", "round.done"].includes(e.type),
    async refresh(signal) {
      const [s, r, m, d] = await Promise.all(["/status", "/runs", "/models", "/datasets"].map((p) => get(p, signal)));
      set(state, el("p", { class: `word ${f.stateKind(s.state)}` }, s.state), el("p", null, foreign(s.why || "It computes for a run.")));
      set(about, facts([
        ["Peer ID", copyable(s.peer, "the peer ID")],
        ["Device", foreign(s.device)],
        ["Program", foreign(s.version)],
        ["Running", `${f.seconds((Date.now() - new Date(s.started).getTime()) / 1000)}, since ${f.date(s.started)}, process ${s.pid}`],
        ["Data folder", foreign(s.data_dir, { class: "foreign mono" })],
        ["API", foreign(s.api, { class: "foreign mono" })],
        ["Addresses", el("ul", { class: "plain" }, s.addrs.map((a) => el("li", null, foreign(a, { class: "foreign mono" }))))],
      ]));
      set(traffic, facts([
        ["Pulled", f.bytes(s.traffic.pulled_bytes)], ["Sent", f.bytes(s.traffic.sent_bytes)],
        ["Peers", el("a", { href: "#/peers" }, `${f.plural(s.peers, "peer")} connected`)], ["Runs", f.plural(s.runs, "run")],
      ]), el("p", { class: "note" }, "Models, data, states and deltas; without what protocols add."));
      runs.update(r.runs.filter((x) => x.joined));
      models.update(m.models);
      data.update(d.datasets);
    },
  };
}
