// How this node is connected: whom to, how far they are, and what was moved.

import { get } from "./api.js";
import { el, svg, copyable, facts, foreign, ident, set, shortID } from "./dom.js";
import { table } from "./table.js";
import * as f from "./format.js";

const reach = {
  public: "public: peers everywhere can dial this node",
  private: "private: behind NAT or a firewall; peers are reached by hole punching, or over relays",
  unknown: "not known yet; peers are asked to dial back",
};
export const kinds = { loopback: "this machine", lan: "same network", internet: "direct over the internet", relay: "over a relay" };

export function networkView() {
  const names = new Map();
  const about = el("div"), graph = el("div");
  const traffic = table({
    caption: "Traffic", file: "traffic", empty: "Nothing was moved.", key: (t) => `${t.scope} ${t.direction} ${t.use}`,
    columns: [
      { title: "Where", value: (t) => (t.scope === "internet" ? "internet" : "this machine and LAN") },
      { title: "Direction", value: (t) => (t.direction === "in" ? "received" : "sent") },
      { title: "What", value: (t) => (t.use === "training" ? "deltas and states" : "models and data") },
      { title: "Since the start", num: true, value: (t) => t.start_bytes, cell: (t) => f.bytes(t.start_bytes) },
      { title: "This month", num: true, value: (t) => t.month_bytes, cell: (t) => f.bytes(t.month_bytes) },
    ],
  });
  const peers = table({
    caption: "Connected peers", file: "peers", empty: "No peer is connected. Nodes on this machine and in this network are found by themselves; others by “moot join --peer” or the setting bootstrap.",
    key: (p) => p.id, sort: 0,
    columns: [
      { title: "Peer", value: (p) => p.id, cell: (p) => ident(p.id) },
      { title: "Where", value: (p) => kinds[p.where] ?? p.where },
      { title: "Direction", value: (p) => p.direction, cell: (p) => (p.direction === "out" ? "out: this node dialled" : "in: the peer dialled") },
      { title: "Round trip", num: true, value: (p) => p.rtt_ms || null, cell: (p) => (p.rtt_ms ? `${f.decimal(p.rtt_ms, p.rtt_ms < 10 ? 2 : 0)} ms` : "–") },
      { title: "Runs in common", value: (p) => (p.runs ?? []).join(" "), cell: (p) => (p.runs?.length ? el("span", null, p.runs.map((r, i) => [i ? ", " : "", el("a", { href: `#/runs/${encodeURIComponent(r)}` }, foreign(names.get(r) ?? r.slice(0, 14)))])) : "none") },
      { title: "Device", value: (p) => p.device ?? "", cell: (p) => foreign(p.device || "–") },
      { title: "Program", value: (p) => p.agent ?? "", cell: (p) => foreign(p.agent ?? "–") },
      { title: "Address", value: (p) => p.addr, cell: (p) => foreign(p.addr, { class: "foreign mono" }) },
    ],
  });
  const card = (title, ...children) => el("section", { class: "card" }, el("h2", null, title), ...children);

  return {
    title: "Network",
    node: el("div", null, el("h1", { tabindex: -1 }, "Network"),
      el("div", { class: "grid" }, card("This node", about), card("Peers around it", graph)), card("Connected peers", peers.node), card("Traffic", traffic.node,
        el("p", { class: "note" }, "Models, data, deltas and states; without what protocols add. Limits and the quota are for the internet alone; “Settings” changes them."))),
    events: (e) => e.type === "peer.joined" || e.type === "peer.left" || e.type === "run.state",
    async refresh(signal) {
      const [n, runs] = await Promise.all([get("/network", signal), get("/runs", signal)]);
      for (const r of runs.runs) names.set(r.id, r.name);
      const times = n.peers.map((p) => p.rtt_ms).filter(Boolean).sort((a, b) => a - b);
      const count = (where) => n.peers.filter((p) => p.where === where).length;
      set(about, facts([
        ["Peer ID", copyable(n.peer, "the peer ID")],
        ["Reached", foreign(reach[n.reachability] ?? n.reachability ?? "not known")],
        ["Peers", `${f.plural(n.peers.length, "peer")}: ${Object.entries(kinds).map(([k, text]) => [count(k), text]).filter(([c]) => c).map(([c, text]) => `${c} ${text}`).join(", ") || "none"}`],
        ["Round trip", times.length ? `median ${f.decimal(times[Math.floor(times.length / 2)], 1)} ms` : "–"],
        ["Relay", n.relays ? "it carries small requests of peers that cannot reach each other, if it can be reached itself" : "turned off"],
        ["Limits", `${n.upload_mbit ? `${f.short(n.upload_mbit)} Mbit/s` : "no limit"} up, ${n.download_mbit ? `${f.short(n.download_mbit)} Mbit/s` : "no limit"} down`],
        ["Quota", n.quota_bytes ? `${f.bytes(n.used_bytes)} of ${f.bytes(n.quota_bytes)} this month (${f.percent(n.used_bytes / n.quota_bytes)})` : `none; ${f.bytes(n.used_bytes)} this month`],
        ["Addresses", el("ul", { class: "plain" }, n.addrs.map((a) => el("li", null, foreign(a, { class: "foreign mono" }))))],
      ]));
      set(graph, ring(n.peers));
      peers.update(n.peers);
      traffic.update(n.traffic);
    },
  };
}

const MOST = 60; // peers that are drawn

// ring draws this node in the middle and its peers around it, without where
// they are: the longer the line, the longer the round trip.
export function ring(peers) {
  const size = 300, middle = size / 2;
  const shown = [...peers].sort((a, b) => (a.id < b.id ? -1 : 1)).slice(0, MOST);
  const far = (p) => 46 + 84 * Math.min(1, Math.log10(1 + (p.rtt_ms || 1)) / 3);
  const picture = svg("svg", { role: "img", class: "plot ring-plot", viewBox: `0 0 ${size} ${size}`, width: size, height: size },
    svg("title", null, `${shown.length} of ${peers.length} peers around this node: ${Object.entries(kinds).map(([k, text]) => `${peers.filter((p) => p.where === k).length} ${text}`).join(", ")}`),
    [1, 10, 100, 1000].map((ms) => svg("circle", { class: "orbit", cx: middle, cy: middle, r: far({ rtt_ms: ms }) })),
    shown.map((p, i) => {
      const a = 2 * Math.PI * i / shown.length - Math.PI / 2, r = far(p);
      const x = middle + r * Math.cos(a), y = middle + r * Math.sin(a);
      return [svg("line", { class: `edge ${p.where === "relay" ? "relayed" : ""}`, x1: middle, y1: middle, x2: x, y2: y }),
        svg("circle", { class: "node", cx: x, cy: y, r: 6 }, svg("title", null, `${shortID(p.id)}: ${kinds[p.where] ?? p.where}${p.rtt_ms ? `, ${f.decimal(p.rtt_ms, 1)} ms` : ""}`))];
    }),
    svg("circle", { class: "self", cx: middle, cy: middle, r: 9 }));
  return [picture, el("p", { class: "note" }, "Circles: round trips of 1, 10, 100 and 1,000 ms. Dashed: over a relay. The table below has the figures.")];
}
