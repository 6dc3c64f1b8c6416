// This node: what it does and why, and what it holds.

import { access, change, get } from "./api.js";
import { el, badge, copyable, facts, foreign, ident, set } from "./dom.js";
import { table } from "./table.js";
import { deviceCharts } from "./devices.js";
import { presetCard } from "./presets.js";
import { runLink } from "./runs.js";
import { scheduleEditor } from "./schedule.js";
import * as f from "./format.js";

const notes = (list) => el("span", null, (list ?? []).map((w, i) => [i ? "; " : "", foreign(w)]));

// steps are where something can be done about why it does not work.
const steps = {
  consent: ["#/begin", "Join a run"], idle: ["#/begin", "Join or launch a run"], hot: ["#/settings", "Change the limit"], battery: ["#/settings", "Change the setting"],
  app: ["#/settings", "Change the list"], game: ["#/settings", "Change the setting"], fullscreen: ["#/settings", "Change the setting"],
  "gpu-busy": ["#/settings", "Change the limits"], "in-use": ["#/settings", "Change the setting"], settling: ["#/settings", "Change how long it waits"],
};

const counts = (m) => Object.entries(m ?? {}).sort().map(([k, n]) => `${n} ${k}`).join(", ");

// scheduled says what the schedule does next.
function scheduled(s) {
  if (!s) return "No schedule: it may work at any time.";
  const when = s.until ? `until ${f.date(s.until)}` : "for good";
  return s.open ? `The schedule allows work ${when}.` : `The schedule allows no work ${when}.`;
}

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
  const presets = presetCard((settings) => act(() => change("PATCH", "/config", { set: settings })));
  const reschedule = el("button", { type: "button", hidden: true, disabled: !may, on: { click: () => { schedule.node.scrollIntoView({ block: "center" }); schedule.node.querySelector("textarea").focus(); } } }, "Change the schedule");
  buttons.append(reschedule);
  const step = el("p", { hidden: true }, el("a", { href: "#/settings" }));
  const todayText = el("p");
  const today = table({
    caption: "Today by run", file: "today", empty: "No round was decided today.", key: (r) => r.run,
    columns: [
      { title: "Run", value: (r) => r.name, cell: (r) => runLink({ id: r.run, name: r.name }) },
      { title: "Rounds", num: true, hint: "that were decided", value: (r) => r.rounds, cell: (r) => `${f.count(r.rounds)}${r.partly ? " or more" : ""}` },
      { title: "Contributed to", num: true, value: (r) => r.contributions, cell: (r) => f.count(r.contributions) },
      { title: "Tokens", num: true, value: (r) => r.tokens, cell: (r) => f.count(r.tokens) },
      { title: "Verdicts", hint: "of auditors, on its deltas", value: (r) => counts(r.verdicts), cell: (r) => foreign(counts(r.verdicts) || "none yet") },
      { title: "Refused", value: (r) => counts(r.refused), cell: (r) => foreign(counts(r.refused) || "none") },
      { title: "Without weight", hint: "contributions that count for nothing", value: (r) => counts(r.no_weight), cell: (r) => foreign(counts(r.no_weight) || "none") },
    ],
  });
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
    node: el("div", null, el("h1", { tabindex: -1 }, "My node"), el("div", { class: "card state" }, state, step, odd, buttons, said),
      card("Today", todayText, today.node),
      el("div", { class: "grid" }, el("div", { class: "stack" }, card("About", about), card("Traffic since the start", traffic), card("Schedule", schedule.node)),
        el("div", { class: "stack" }, card("Limits", caps), presets.node)),
      card("Devices", gauges.node, curves.node),
      card("Runs", runs.node), card("Models", models.node), card("Data sets", data.node)),
    events: (e) => ["node.state", "run.state", "peer.joined", "peer.left", "round.done"].includes(e.type),
    async refresh(signal) {
      again = this.again;
      const [s, r, m, d, c, t, p, net] = await Promise.all(["/status", "/runs", "/models", "/datasets", "/config", "/today", "/config/presets", "/network"].map((path) => get(path, signal)));
      set(state, el("p", { class: `word ${f.stateKind(s.state)}` }, s.state), el("p", null, foreign(s.why || "It computes for a run.")),
        s.until && el("p", null, `Until ${f.date(s.until)}.`), s.do && el("p", { class: "note" }, foreign(s.do)), el("p", { class: "note" }, scheduled(s.schedule)),
        s.config_error && el("p", { class: "problem" }, "The configuration file is not used as it is now: ", foreign(s.config_error)),
        s.restart_needed?.length && el("p", { class: "note" }, `Takes effect at the next start: ${s.restart_needed.join(", ")}.`));
      gauges.update(s.devices ?? []);
      set(odd, [["The clock of this machine is wrong: ", s.clock_error], ...Object.entries(s.blind ?? {}).map(([k, v]) => [`${k} has no effect: `, v])]
        .filter(([, v]) => v).map(([k, v]) => el("p", { class: "note" }, k, foreign(v))));
      step.hidden = !steps[s.reason];
      if (steps[s.reason]) {
        const [href, text] = steps[s.reason];
        set(step, el("a", { href }, text));
      }
      reschedule.hidden = s.reason !== "schedule";
      paused = s.reason === "paused" || s.reason === "finished" || s.reason === "consent";
      pause.hidden = length.hidden = s.reason === "paused";
      resume.hidden = !paused;
      finish.hidden = s.reason === "finished";
      const of = (key) => c.settings.find((x) => x.key === key)?.values ?? [];
      const one = (key, text) => (of(key).length ? text(of(key)[0]) : null);
      const celsius = Math.max(...(s.devices ?? []).map((x) => x.celsius ?? -Infinity));
      const hottest = Number.isFinite(celsius) ? `; now ${celsius} °C` : "";
      set(caps, facts([
        ["Duty", one("work.duty_percent", (v) => `${v} % of the time`)],
        ["Threads", one("threads", (v) => v)],
        ["Temperature", one("work.max_temp_c", (v) => (v === "0" ? "any" : `stops above ${v} °C${hottest}`))],
        ["When somebody is there", one("work.idle_minutes", (v) => (v === "0" ? "works, too" : `works ${v} min after the last input`))],
        ["On battery", one("work.on_battery", (v) => (v === "true" ? "works" : "does not work"))],
        ["Makes way for", foreign(of("work.exclusive_apps").join(", ") || "no program")],
        ["Of the GPU, others may", one("work.other_gpu_percent", (v) => `${v === "0" ? "use any part of the time" : `use ${v} % of the time`}, ${one("work.other_gpu_mb", (mb) => (mb === "0" ? "hold any memory" : `hold ${mb} MB`)) ?? "–"}`)],
        ["GPU memory left free", one("work.vram_reserve_mb", (v) => `${v} MB`)],
        ["Priority", one("work.priority", (v) => (v === "low" ? "low: gives way to every other program" : v))],
        ["This month", net.quota_bytes ? `${f.bytes(net.used_bytes)} of ${f.bytes(net.quota_bytes)} over the internet` : `${f.bytes(net.used_bytes)} over the internet; no limit`],
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
      const since = f.clock(t.since) === "00:00:00" ? "midnight" : f.date(t.since); // the browser may be in another zone
      todayText.textContent = t.runs.length ? `${f.count(t.tokens)} tokens in ${f.plural(t.runs.reduce((n, x) => n + x.contributions, 0), "contribution")} since ${since}.` : `Nothing was contributed since ${since}.`;
      today.update(t.runs);
      presets.update(p, c.settings, may && Boolean(c.file));
      runs.update(r.runs.filter((x) => x.joined));
      models.update(m.models);
      data.update(d.datasets);
      await curves.refresh(signal);
    },
  };
}
