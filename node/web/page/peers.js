// The peers that this node is connected to.

import { get } from "./api.js";
import { el, foreign, ident } from "./dom.js";
import { table } from "./table.js";
import * as f from "./format.js";

export function peersView() {
  const names = new Map();
  const peers = table({
    caption: "Peers", file: "peers", empty: "No peer is connected. Nodes on this machine and in this network are found by themselves; others by “moot join --peer” or the key bootstrap.",
    key: (p) => p.id, sort: 0,
    columns: [
      { title: "Peer", value: (p) => p.id, cell: (p) => ident(p.id) },
      { title: "Where", value: (p) => p.where },
      { title: "Direction", value: (p) => p.direction, cell: (p) => (p.direction === "out" ? "out: this node dialled" : "in: the peer dialled") },
      { title: "Round trip", num: true, value: (p) => p.rtt_ms || null, cell: (p) => (p.rtt_ms ? `${f.decimal(p.rtt_ms, p.rtt_ms < 10 ? 2 : 0)} ms` : "–") },
      { title: "Runs in common", value: (p) => (p.runs ?? []).join(" "), cell: (p) => (p.runs?.length ? el("span", null, p.runs.map((r, i) => [i ? ", " : "", el("a", { href: `#/runs/${encodeURIComponent(r)}` }, foreign(names.get(r) ?? r.slice(0, 14)))])) : "none") },
      { title: "Program", value: (p) => p.agent ?? "", cell: (p) => foreign(p.agent ?? "–") },
      { title: "Address", value: (p) => p.addr, cell: (p) => foreign(p.addr, { class: "foreign mono" }) },
    ],
  });
  return {
    title: "Peers",
    node: el("div", null, el("h1", { tabindex: -1 }, "Peers"), el("div", { class: "card" }, peers.node)),
    events: (e) => e.type === "peer.joined" || e.type === "peer.left" || e.type === "run.state",
    async refresh(signal) {
      const [list, runs] = await Promise.all([get("/peers", signal), get("/runs", signal)]);
      for (const r of runs.runs) names.set(r.id, r.name);
      peers.update(list.peers);
    },
  };
}
