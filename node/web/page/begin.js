// To take part in a run, or to begin one: nothing is pulled or published before
// this page has shown what that takes, and somebody agreed.

import { access, get, run as operate } from "./api.js";
import { el, badge, copyable, facts, foreign, ident, set, uid } from "./dom.js";
import { table } from "./table.js";
import * as f from "./format.js";

const kinds = { fits: "good", tight: "calm", unknown: "calm", exceeds: "bad", refused: "bad" };
const verdict = (v) => badge(v, kinds[v]);

// amount is how much of something there is; below 0 nobody knows.
const amount = (need, have) => (need > 0 || have > 0 ? `${f.bytes(need)} of ${have < 0 ? "an unknown amount" : f.bytes(have)}` : "–");

const progressText = (p) => p.text || (p.total ? `${p.phase}: ${p.unit === "bytes" ? `${f.bytes(p.done)} of ${f.bytes(p.total)}` : `${f.count(p.done)} of ${f.count(p.total)}`}` : p.phase);

// field makes a labelled control.
function field(label, control, note) {
  const id = uid("begin");
  control.id = id;
  return el("div", { class: "field" }, el("label", { for: id }, label), control, note && el("p", { class: "note" }, note));
}

// job does one thing at a time, which can be stopped, and says how it ended.
function job(buttons) {
  const said = el("p", { class: "note", role: "status" }), wrong = el("div", { class: "problem", role: "alert", hidden: true });
  const stop = el("button", { type: "button", disabled: true, on: { click: () => abort?.abort() } }, "Stop");
  let abort = null;
  return {
    said, wrong, stop,
    get busy() { return abort !== null; },
    end() { abort?.abort(); },
    async do(text, what) {
      if (abort) return;
      abort = new AbortController();
      stop.disabled = false;
      wrong.hidden = true;
      said.textContent = text;
      buttons();
      try {
        await what(abort.signal, (p) => { said.textContent = progressText(p); });
      } catch (err) {
        said.textContent = abort.signal.aborted ? "stopped" : "";
        wrong.hidden = abort.signal.aborted;
        set(wrong, el("p", null, foreign(err.message)), err.hint && el("p", null, foreign(err.hint)), err.code && el("p", null, el("code", null, err.code)));
      } finally {
        abort = null;
        stop.disabled = true;
        buttons();
      }
    },
  };
}

// fitTable shows what a run needs of this machine.
function fitTable() {
  return table({
    caption: "What it takes", file: "fit", empty: "Nothing was checked yet.", key: (i) => i.name,
    columns: [
      { title: "What", value: (i) => i.name },
      { title: "Verdict", value: (i) => i.verdict, cell: (i) => verdict(i.verdict) },
      { title: "Needs", num: true, value: (i) => i.need_bytes, cell: (i) => amount(i.need_bytes, i.have_bytes) },
      { title: "In words", value: (i) => i.text, cell: (i) => foreign(i.text) },
      { title: "Way out", value: (i) => i.way ?? "", cell: (i) => foreign(i.way ?? "") },
    ],
  });
}

// fromLine reads what others paste: "moot join ID --peer ADDRESS --invite CODE".
function fromLine(text) {
  const words = text.replaceAll("\\\n", " ").split(/\s+/).filter(Boolean);
  const out = { id: "", peers: [], invite: "" };
  for (let i = 0; i < words.length; i++) {
    if (words[i] === "--peer") out.peers.push(...(words[++i] ?? "").split(",").filter(Boolean));
    else if (words[i] === "--invite") out.invite = words[++i] ?? "";
    else if (/^baf[a-z2-7]+$/.test(words[i])) out.id ||= words[i];
  }
  return out;
}

function joinCard(given) {
  const id = el("input", { type: "text", spellcheck: "false", autocomplete: "off", value: given ?? "", placeholder: "bafkrei…" });
  const peers = el("textarea", { rows: 2, spellcheck: "false", placeholder: "/ip4/203.0.113.7/udp/4001/quic-v1/p2p/12D3KooW…" });
  const invite = el("input", { type: "text", spellcheck: "false", autocomplete: "off" });
  const consent = el("input", { type: "checkbox", disabled: true });
  const agree = el("span");
  const check = el("button", { type: "submit", class: "main" }, "Check whether it fits");
  const join = el("button", { type: "button", class: "main", disabled: true }, "Pull and join");
  const about = el("div"), result = el("p", { class: "lead", role: "status" });
  const items = fitTable();
  const shown = el("div", { hidden: true }, about, items.node, el("label", { class: "consent" }, consent, " ", agree), el("p", { class: "tools" }, join));
  let fit = null;
  const work = job(buttons);
  const may = access === "full";

  function buttons() {
    check.disabled = work.busy || !may;
    const refused = !fit || fit.items.some((i) => i.code);
    consent.disabled = work.busy || refused;
    join.disabled = work.busy || refused || !consent.checked;
  }
  const forget = () => { fit = null; consent.checked = false; shown.hidden = true; buttons(); };
  for (const x of [id, peers, invite]) x.addEventListener("input", forget);
  id.addEventListener("change", () => {
    const line = fromLine(id.value);
    if (!line.id) return;
    id.value = line.id;
    if (line.peers.length) peers.value = line.peers.join("\n");
    if (line.invite) invite.value = line.invite;
  });
  consent.addEventListener("change", buttons);
  const addresses = () => peers.value.split(/[\s,]+/).filter(Boolean);

  const form = el("form", { class: "card" }, el("h2", null, "Join a run"),
    field("Run", id, "Its ID, or the whole line that its launcher passed on."),
    field("Peers", peers, "Addresses of nodes that are in it, one a line. None: they are looked for."),
    field("Invitation", invite, "Only for a run that asks for one."),
    el("p", { class: "tools" }, check, work.stop), work.said, work.wrong, shown, result);
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    forget();
    result.replaceChildren();
    work.do("the run is looked for", async (signal, progress) => {
      fit = await operate(`/runs/${encodeURIComponent(id.value.trim())}/check`, { peers: addresses() }, progress, signal);
      const refused = fit.items.some((i) => i.code);
      work.said.textContent = refused ? "This node does not join it." : "Nothing was pulled yet.";
      set(about, el("p", null, el("strong", null, foreign(fit.name || "(no name)")), " ", verdict(fit.verdict)), facts([
        ["Launched by", ident(fit.launcher)],
        ["Model", el("span", null, ident(fit.model), ` ${f.bytes(fit.model_bytes)}, licence `, foreign(fit.model_licence || "not stated"))],
        ["Data", el("span", null, ident(fit.dataset), ` ${f.bytes(fit.dataset_bytes)}, licence `, foreign(fit.data_licence || "not stated"))],
        ["To pull", f.bytes(fit.missing_bytes)], ["Made for", fit.use === "unstated" ? "use not stated" : `${fit.use} use`], ["Computes on", foreign(fit.device)],
      ]));
      items.update(fit.items);
      agree.textContent = `Pull ${f.bytes(fit.missing_bytes)}, let this machine train for this run, and share what it pulled with the run's other peers`;
      shown.hidden = false;
    });
  });
  join.addEventListener("click", () => work.do("joining", async (signal, progress) => {
    const r = await operate(`/runs/${encodeURIComponent(id.value.trim())}/join`, { peers: addresses(), ...(invite.value.trim() ? { invite: invite.value.trim() } : {}) }, progress, signal);
    forget();
    work.said.textContent = "";
    set(result, "This node is in ", el("a", { href: `#/runs/${encodeURIComponent(r.id)}` }, foreign(r.name || r.id)), ". It can be left again on that page.");
  }));
  buttons();
  return { node: form, end: work.end };
}

function launchCard() {
  const name = el("input", { type: "text", autocomplete: "off", value: "my-run" });
  const model = el("select"), data = el("select");
  const preset = el("select");
  const fill = el("button", { type: "button" }, "Write the run file");
  const file = el("input", { type: "file", accept: ".toml,text/plain" });
  const text = el("textarea", { rows: 16, spellcheck: "false", class: "mono" });
  const plan = el("button", { type: "submit", class: "main" }, "Plan");
  const consent = el("input", { type: "checkbox", disabled: true });
  const launch = el("button", { type: "button", class: "main", disabled: true }, "Launch");
  const shown = el("div", { hidden: true });
  const result = el("div", { role: "status" });
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
      { title: "Lasts", num: true, value: (s) => s.seconds, cell: (s) => f.seconds(s.seconds) },
      { title: "Passes over the data", num: true, value: (s) => s.passes, cell: (s) => f.decimal(s.passes, 1) },
      { title: "Guarantee", value: (s) => s.guarantee.text, cell: (s) => foreign(s.guarantee.text) },
    ],
  });
  let planned = null; // the text that can be launched
  const work = job(buttons);
  const may = access === "full";
  let source = "run.toml"; // what errors name
  const request = () => ({ name: source, toml: text.value });

  function buttons() {
    plan.disabled = work.busy || !may || !text.value.trim();
    fill.disabled = work.busy;
    consent.disabled = work.busy || planned === null;
    launch.disabled = work.busy || planned === null || !consent.checked;
  }
  const forget = () => { planned = null; consent.checked = false; shown.hidden = true; buttons(); };
  text.addEventListener("input", forget);
  consent.addEventListener("change", buttons);
  file.addEventListener("change", async () => {
    if (!file.files[0]) return;
    text.value = await file.files[0].text();
    source = file.files[0].name;
    forget();
  });
  fill.addEventListener("click", () => work.do("", async (signal) => {
    const q = new URLSearchParams({ name: name.value.trim(), model: model.value, dataset: data.value });
    text.value = (await get(`/presets/${preset.value}?${q}`, signal)).toml;
    source = "run.toml";
    forget();
  }));

  const form = el("form", { class: "card" }, el("h2", null, "Launch a run"),
    el("div", { class: "row" }, field("Name", name), field("Preset", preset), field("Model", model), field("Data", data)),
    el("p", { class: "tools" }, fill),
    field("… or a run file", file),
    field("Run file", text, "What is commented out is the default."),
    el("p", { class: "tools" }, plan, work.stop), work.said, work.wrong, shown, result);

  form.addEventListener("submit", (e) => {
    e.preventDefault();
    forget();
    result.replaceChildren();
    const req = request();
    work.do("model and data are checked", async (signal, progress) => {
      const p = await operate("/runs/plan", req, progress, signal);
      show(p);
      if (!p.refused.length && req.toml === text.value) planned = req.toml;
      work.said.textContent = p.refused.length ? "It cannot be launched like this." : "It can be launched. Nobody else has seen it yet.";
    });
  });
  launch.addEventListener("click", () => work.do("launching", async (signal, progress) => {
    if (text.value !== planned) return forget();
    const r = await operate("/runs", request(), progress, signal);
    forget(); // launched, whatever else fails
    const status = await get("/status", signal).catch(() => ({}));
    const addrs = status.addrs ?? [];
    const addr = addrs.find((a) => !a.startsWith("/ip4/127.") && !a.startsWith("/ip6/::1/")) ?? addrs[0];
    work.said.textContent = "";
    set(result, el("p", null, "Launched: ", el("a", { href: `#/runs/${encodeURIComponent(r.id)}` }, foreign(r.name || r.id)), ". Others join with:"),
      el("p", null, copyable(`moot join ${r.id}${addr ? ` --peer ${addr}` : ""}`, "the line with which others join")));
  }));

  // show says what the plan came to.
  function show(p) {
    const t = p.data.train, e = p.data.eval;
    memory.update([...p.devices, { name: "this machine", memory: p.here.items[0] }]);
    links.update(p.traffic.links);
    swarms.update(p.swarms);
    const samples = (t.samples ?? []).map((s) => el("details", null, el("summary", null, foreign(s.place)), sample(s)));
    set(shown, el("h3", null, "Plan of ", foreign(p.name)),
      p.refused.map((x) => el("p", { class: "problem" }, foreign(x.message), x.hint && [" – ", foreign(x.hint)])),
      p.warnings.map((w) => el("p", { class: "note" }, badge("warning", "calm"), " ", foreign(w))),
      facts([
        ["Model", el("span", null, ident(p.model.id), " ", foreign(p.model.name), ` ${f.compact(p.model.parameters)} parameters, ${f.compact(p.model.trained)} of them trained, licence `, foreign(p.model.licence || "not stated"))],
        ["Data", `${f.plural(t.rows, "row")} to train on, ${f.count(t.dropped)} left out, ${f.count(t.cut)} shortened; ${f.plural(e.rows, "row")} held out, ${f.count(e.leaks)} of them trained on too`],
        t.tokens && ["Counted tokens", f.count(t.tokens.counted)],
        ...[...(t.problems ?? []), ...(e.problems ?? [])].slice(0, 20).map((x) => [x.kind, foreign(`${x.place}: ${x.why}`)]),
        ["Length", `at most ${f.plural(p.length.rounds, "round")} of ${f.seconds(p.length.period_s)}: ${f.seconds(p.length.seconds)}`],
        ["A seat trains on", `up to ${f.plural(p.length.samples_per_seat, "row")}, ${f.count(p.length.tokens_per_seat)} counted tokens, in each round`],
        p.eval.rows > 0 && ["Held-out loss", `after a round ${p.eval.peers ? `${f.plural(p.eval.peers, "peer")} drawn by lot ${p.eval.peers === 1 ? "measures" : "measure"} it` : "each peer measures it"} on ${f.plural(p.eval.rows, "row")}: ${f.percent(p.eval.share)} of the time that it trains`],
      ]), samples.length > 0 && el("h3", null, "Samples; what is marked counts"), samples, memory.node, links.node,
      el("p", { class: "note" }, `Busy: the part of the time that a seat computes whose steps fill the round. Overlapped: the same with ${f.plural(p.traffic.overlap_steps, "step")} of the next round while deltas travel, ${p.traffic.overlaps ? "as the file asks for" : `which inner.overlap_steps = ${p.traffic.overlap_steps} would ask for`}.`),
      swarms.node);
    if (!p.refused.length) {
      shown.append(el("label", { class: "consent" }, consent, " Publish this run; this machine serves its model and data, and trains in it"), el("p", { class: "tools" }, launch));
    }
    shown.hidden = false;
  }

  buttons();
  return {
    node: form, end: work.end,
    update(models, sets, presets) {
      const options = (list, none) => (list.length ? [...list].reverse().map((x) => el("option", { value: x.id }, foreign(x.name || x.id).textContent)) : [el("option", { value: "" }, none)]);
      set(preset, presets.map((v) => el("option", { value: v }, v)));
      set(model, options(models, "none here: moot model import"));
      set(data, options(sets, "none here: moot data import"));
    },
  };
}

// sample shows a row as it is encoded, with what the loss counts marked.
const sample = (s) => el("p", { class: "sample" }, (s.parts ?? []).map((x) => (x.counted ? el("mark", null, foreign(x.text)) : foreign(x.text))));

export function beginView(id) {
  const join = joinCard(id), launch = launchCard();
  return {
    title: "Join or launch",
    node: el("div", null, el("h1", { tabindex: -1 }, "Join or launch a run"),
      access === "full" ? el("p", { class: "lead" }, "Nothing is pulled or published before it was checked, and you agreed.") : el("p", { class: "lead" }, "This page may look, and not change anything: open it with the daemon's full token."),
      el("div", { class: "grid" }, join.node, launch.node)),
    events: () => false,
    leave() { join.end(); launch.end(); },
    async refresh(signal) {
      const [models, sets, any] = await Promise.all([get("/models", signal), get("/datasets", signal), get("/presets/alpaca", signal)]);
      launch.update(models.models, sets.datasets, any.presets);
    },
  };
}
