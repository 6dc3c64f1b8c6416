// This node: what it does and why, and what it holds.

import { access, change, get } from "./api.js";
import { el, badge, copyable, facts, foreign, ident, set } from "./dom.js";
import { table } from "./table.js";
import { deviceCharts } from "./devices.js";
import { runLink } from "./runs.js";
import { scheduleEditor } from "./schedule.js";
import * as f from "./format.js";

const notes = (list) => el("span", null, (list ?? []).map((w, i) => [i ? "; " : "", foreign(w)]));

export function nodeView() {
  const state = el("div");
  const said = el("p", { class: "problem", role: "alert", hidden: true });
  const caps = el("div"), odd = el("div");
  let paused = false, again = () => {};
  // act asks for something, and says why not.
  const act = async (fn) => {
    said.hidden = true;
    try {
      await fn();
    } catch (err) {
      said.hidden = false;
      set(said, foreign(err.message), err.hint ? " – " : "", err.hint ? foreign(err.hint) : "");
    }
    again();
  };
  const may = access === "full";
  const control = (text, request, attrs) => el("button", { type: "button", disabled: !may, ...attrs, on: { click: () => act(() => change("POST", "/control", request())) } }, text);
  const length = el("select", { "aria-label": "Pause for how long", disabled: !may }, [["0", "until resumed"], ["1800", "30 minutes"], ["3600", "1 hour"], ["14400", "4 hours"], ["43200", "12 hours"]].map(([value, text]) => el("option", { value }, text)));
  const pause = control("Pause", () => ({ action: "pause", ...(length.value === "0" ? {} : { for_seconds: Number(length.value) }) }), { class: "main" });
  const resume = control("Resume", () => ({ action: "resume" }), { class: "main" });
  const finish = control("Finish", () => ({ action: "finish" }), { title: "what is under way is finished and published, then nothing more" });
  const buttons = el("p", { class: "tools" }, pause, length, resume, finish);
  const schedule = scheduleEditor((lines) => act(() => change("PATCH", "/config", { set: { "work.schedule": lines } })));
  const about = el("div");
  const traffic = el("div");
  const gauges = table({
    caption: "Devices", file: "devices", empty: "The system tells nothing of its devices.", key: (d) => d.name,
    columns: [
      { title: "Device", value: (d) => d.name, cell: (d) => foreign(d.name) },
      { title: "Used", num: true, hint: "by all programs", value: (d) => d.util_percent, cell: (d) => (d.util_percent == null ? "–" : `${d.util_percent} %`) },
      { title: "Memory", num: true, hint: "of all programs, of how much", value: (d) => d.used_bytes, cell: (d) => (d.used_bytes == null ? "–" : `${f.bytes(d.used_bytes)}${d.total_bytes == null ? "" : ` of ${f.bytes(d.total_bytes)}`}`) },
      { title: "Of others", num: true, hint: "memory held by other programs", value: (d) => d.other_bytes, cell: (d) => (d.other_bytes == null ? "–" : f.bytes(d.other_bytes)) },
      { title: "Temperature", num: true, value: (d) => d.celsius, cell: (d) => (d.celsius == null ? "–" : `${d.celsius} °C`) },
      { title: "Power", num: true, value: (d) => d.watts, cell: (d) => (d.watts == null ? "–" : `${d.watts} W`) },
    ],
  });
  const curves = deviceCharts();
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
    title: "My node", every: 5000,
    node: el("div", null, el("h1", { tabindex: -1 }, "My node"), el("div", { class: "card state" }, state, odd, buttons, said),
      el("div", { class: "grid" }, el("div", { class: "stack" }, card("About", about), card("Traffic since the start", traffic)),
        el("div", { class: "stack" }, card("Limits", caps), card("Schedule", schedule.node))),
      card("Devices", gauges.node, curves.node),
      card("Runs", runs.node), card("Models", models.node), card("Data sets", data.node)),
    events: (e) => ["node.state", "run.state", "peer.joined", "peer.left", "round.done"].includes(e.type),
    async refresh(signal) {
      again = () => { this.refresh(signal).catch(() => {}); };
      const [s, r, m, d, c] = await Promise.all(["/status", "/runs", "/models", "/datasets", "/config"].map((p) => get(p, signal)));
      set(state, el("p", { class: `word ${f.stateKind(s.state)}` }, s.state), el("p", null, foreign(s.why || "It computes for a run.")),
        s.until && el("p", null, `Until ${f.date(s.until)}.`), s.do && el("p", { class: "note" }, foreign(s.do)),
        s.config_error && el("p", { class: "problem" }, "The configuration file is not used as it is now: ", foreign(s.config_error)),
        s.restart_needed?.length && el("p", { class: "note" }, `Takes effect at the next start: ${s.restart_needed.join(", ")}.`));
      gauges.update(s.devices ?? []);
      set(odd, [["The clock of this machine is wrong: ", s.clock_error], ...Object.entries(s.blind ?? {}).map(([k, v]) => [`${k} has no effect: `, v])]
        .filter(([, v]) => v).map(([k, v]) => el("p", { class: "note" }, k, foreign(v))));
      paused = s.reason === "paused" || s.reason === "finished" || s.reason === "consent";
      pause.hidden = length.hidden = s.reason === "paused";
      resume.hidden = !paused;
      finish.hidden = s.reason === "finished";
      const of = (key) => c.settings.find((x) => x.key === key)?.values ?? [];
      const one = (key, text) => (of(key).length ? text(of(key)[0]) : null);
      set(caps, facts([
        ["Duty", one("work.duty_percent", (v) => `${v} % of the time`)],
        ["Threads", one("threads", (v) => v)],
        ["Temperature", one("work.max_temp_c", (v) => (v === "0" ? "any" : `stops above ${v} °C`))],
        ["On battery", one("work.on_battery", (v) => (v === "true" ? "works" : "does not work"))],
        ["Makes way for", foreign(of("work.exclusive_apps").join(", ") || "no program")],
        ["Upload", one("network.upload_mbit", (v) => (v === "0" ? "no limit" : `${v} Mbit/s`))],
        ["Download", one("network.download_mbit", (v) => (v === "0" ? "no limit" : `${v} Mbit/s`))],
        ["Disk", one("cache_max_mb", (v) => (v === "0" ? "all there is" : `at most ${v} MB`))],
        ["Stays free", one("min_free_mb", (v) => `${v} MB`)],
      ]), el("p", { class: "note" }, el("a", { href: "#/settings" }, "Settings"), " changes them."));
      schedule.update(of("work.schedule"), may && Boolean(c.file) && !["flag", "environment"].includes(c.settings.find((x) => x.key === "work.schedule")?.origin));
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
        ["Peers", el("a", { href: "#/network" }, `${f.plural(s.peers, "peer")} connected`)], ["Runs", f.plural(s.runs, "run")],
      ]), el("p", { class: "note" }, "Models, data, states and deltas; without what protocols add."));
      runs.update(r.runs.filter((x) => x.joined));
      models.update(m.models);
      data.update(d.datasets);
      await curves.refresh(signal);
    },
  };
}
