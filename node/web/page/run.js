// One run.

import { access, change, get } from "./api.js";
import { answer, el, badge, copyable, facts, foreign, ident, peer, save, set, uid } from "./dom.js";
import { csvBlob } from "./csv.js";
import { table } from "./table.js";
import { chart } from "./chart.js";
import { allRounds, best, historyOf } from "./rounds.js";
import { clockOf, timeline } from "./timeline.js";
import { kinds, ring } from "./network.js";
import { keptSamples } from "./sampled.js";
import { coverText, leakText, shardText } from "./data.js";
import { heat } from "./heat.js";
import { memberLink } from "./members.js";
import { runPages } from "./pages.js";
import { eventText } from "./eventtext.js";
import { paint } from "./paint.js";
import * as f from "./format.js";

const card = (title, ...children) => el("section", { class: "card" }, el("h2", null, title), ...children);

export const roundLink = (id, n) => el("a", { href: `#/runs/${encodeURIComponent(id)}/rounds/${n}` }, String(n));

// axes are what rounds can be drawn against.
const axes = {
  round: { title: "round", whole: true, text: (v) => f.count(v), of: (r) => r.round },
  tokens: { title: "tokens", whole: true, text: (v) => f.compact(v), of: (r) => r.tokens },
  time: { title: "time of day", time: true, text: (v) => f.clock(v), of: (r) => new Date(r.decided).getTime() },
};

const KEY = "moot.x";
const REACH_MS = 9000; // how peers are reached is asked so often at most

export function runView(id, log) {
  const history = historyOf(id);
  let coverRound = -1, coverKnown = false, cover = null, coverTurn = 0;
  let totals = null, totalsOf = ""; // by peer, up to this record
  let older = []; // rounds that were asked for, and all since
  const gone = new AbortController(); // when the page is left
  let run = null, me = "", by = localStorage.getItem(KEY), log2 = false, mean = true;
  if (!axes[by]) by = "tokens";

  const head = el("div", { class: "head" }), alerts = el("div", { class: "problem", role: "alert", hidden: true });
  const samples = el("div"), net = el("div");
  let reached = -REACH_MS; // when it was asked how peers are reached
  let soon = 0; // a timer: when whom a round waits for becomes worth naming
  const why = el("p", { class: "lead" });
  const tiles = el("div", { class: "tiles" });
  const current = el("section", { class: "card" });

  const name = id.slice(0, 14);
  const losses = chart({ title: "Loss", unit: "nats per token", y: f.loss, tick: f.short, file: `${name}-loss` });
  const tokens = chart({ title: "Tokens per round", unit: "tokens", y: f.count, tick: (v) => f.compact(v, 1000), file: `${name}-tokens` });
  const seats = chart({ title: "Seats and contributions", unit: "peers", y: f.count, file: `${name}-seats` });
  const speed = chart({ title: "Swarm speed", unit: "tokens per second", y: (v) => f.compact(v), file: `${name}-speed` });
  const deltas = chart({ title: "Deltas", unit: "deltas", y: f.count, file: `${name}-deltas` });
  const bytes = chart({ title: "Bytes per round", unit: "bytes", y: f.bytes, file: `${name}-bytes` });
  const covered = heat("Coverage of the data by shard and pass", `${name}-coverage`);
  const online = chart({ title: "Peers online", unit: "peers", y: f.count, file: `${name}-online` });
  const phases = timeline(`${name}-timeline`);
  const coverNote = el("p", { class: "note" }), coverShards = el("p"), bytesText = el("p", { class: "note" });
  const times = chart({ title: "Time per round", unit: "s", y: (v) => f.compact(Number(v.toFixed(1))), file: `${name}-rounds` });

  const group = uid("axis");
  const choice = el("fieldset", { class: "choice" }, el("legend", null, "Draw against"), Object.keys(axes).map((k) => {
    const input = el("input", { type: "radio", name: group, value: k, checked: k === by });
    input.addEventListener("change", () => {
      by = k;
      localStorage.setItem(KEY, k);
      draw();
    });
    return el("label", null, input, k);
  }), (() => {
    const input = el("input", { type: "checkbox" });
    input.addEventListener("change", () => { log2 = input.checked; draw(); });
    return el("label", null, input, "logarithmic loss");
  })(), (() => {
    const input = el("input", { type: "checkbox", checked: true });
    input.addEventListener("change", () => { mean = input.checked; draw(); });
    return el("label", null, input, "running mean");
  })());

  const peers = table({
    caption: "Contributions by peer", file: "contributions", empty: "No round has ended yet.", key: (p) => p.peer, sort: -3,
    columns: [
      { title: "Peer", value: (p) => p.peer, cell: (p) => memberLink(id, p.peer, me) },
      { title: "Rounds", num: true, value: (p) => p.rounds, cell: (p) => f.count(p.rounds) },
      { title: "Tokens", num: true, value: (p) => p.tokens, cell: (p) => f.count(p.tokens) },
      { title: "Share of weight", num: true, hint: "its part of all weight that entered the rounds", value: (p) => p.share, cell: (p) => f.percent(p.share) },
      { title: "Clipped", num: true, hint: "rounds in which its delta was longer than the median and was shortened", value: (p) => p.clipped, cell: (p) => f.count(p.clipped) },
      { title: "Last loss", num: true, hint: "training loss in its last round, as it says itself", value: (p) => p.loss, cell: (p) => f.loss(p.loss) },
      { title: "Sent", num: true, value: (p) => p.bytes, cell: (p) => f.bytes(p.bytes) },
      { title: "Refused", num: true, value: (p) => p.refused, cell: (p) => f.count(p.refused) },
      { title: "Reasons", value: (p) => reasons(p), cell: (p) => reasons(p) },
      { title: "Reputation", num: true, hint: "mean worth of its deltas, fading", value: (p) => p.standing?.worth ?? null, cell: (p) => f.decimal(p.standing?.worth) },
      { title: "Last round", num: true, value: (p) => p.last, cell: (p) => (p.last ? roundLink(id, p.last) : "–") },
    ],
  });
  const refused = table({
    caption: "Refused deltas", file: "refused", empty: "No delta was refused.", key: (x) => `${x.round} ${x.peer}`, limit: 20,
    columns: [
      { title: "Round", num: true, value: (x) => x.round, cell: (x) => roundLink(id, x.round) },
      { title: "Peer", value: (x) => x.peer, cell: (x) => peer(x.peer, me) },
      { title: "Reason", value: (x) => x.reason, cell: (x) => badge(x.reason, "bad") },
      { title: "In words", value: (x) => f.reason(x.reason) },
    ],
  });
  const members = table({
    caption: "Members", file: "members", empty: "Nobody was heard of in the last two minutes.", key: (m) => m.peer, sort: 0,
    columns: [
      { title: "Peer", value: (m) => m.peer, cell: (m) => peer(m.peer, me) },
      { title: "Phase", value: (m) => m.phase, cell: (m) => foreign(m.phase) },
      { title: "Round", num: true, value: (m) => m.round, cell: (m) => f.count(m.round) },
      { title: "Tokens/s", num: true, value: (m) => m.tokens_per_second, cell: (m) => f.count(m.tokens_per_second) },
      { title: "Device", value: (m) => m.device ?? "", cell: (m) => foreign(m.device ?? "–") },
      { title: "Program", value: (m) => m.agent ?? "", cell: (m) => foreign(m.agent ?? "–") },
      { title: "Head", value: (m) => m.head, cell: (m) => ident(m.head) },
      { title: "Seen", value: (m) => m.seen, cell: (m) => f.ago(m.seen) },
    ],
  });
  const next = table({
    caption: "Seats of the next round", file: "seats", empty: "No seat is taken.", key: (s) => s.peer,
    columns: [
      { title: "Peer", value: (s) => s.peer, cell: (s) => peer(s.peer, me) },
      { title: "Since round", num: true, value: (s) => s.since, cell: (s) => f.count(s.since) },
      { title: "Missed", num: true, hint: "rounds in a row without a contribution", value: (s) => s.missed, cell: (s) => f.count(s.missed) },
      { title: "Standing", value: (s) => (s.fresh ? "fresh" : "full"), cell: (s) => (s.fresh ? "fresh: its next contribution has weight 0" : "full") },
    ],
  });
  const rounds = table({
    caption: "Rounds", file: "rounds", empty: "No round has ended yet.", key: (r) => r.round, sort: -1, limit: Infinity,
    columns: [
      { title: "Round", num: true, value: (r) => r.round, cell: (r) => roundLink(id, r.round) },
      { title: "Agreement", value: (r) => (r.certified ? "certified" : "provisional"), cell: (r) => badge(r.certified ? "certified" : "provisional", r.certified ? "good" : "calm") },
      { title: "Votes", num: true, value: (r) => r.votes, cell: (r) => `${f.count(r.votes)} of ${f.count(r.seats)}` },
      { title: "Contributed", num: true, value: (r) => r.contributions.length },
      { title: "Refused", num: true, value: (r) => r.refused.length },
      { title: "Tokens", num: true, value: tokensOf, cell: (r) => f.count(tokensOf(r)) },
      { title: "Train loss", num: true, value: (r) => r.train_loss, cell: (r) => f.loss(r.train_loss) },
      { title: "Eval loss", num: true, hint: "nats per token, on held-out rows", value: (r) => r.eval_loss, cell: (r) => f.loss(r.eval_loss) },
      { title: "Perplexity", num: true, hint: "on held-out rows", value: (r) => r.eval_loss, cell: (r) => f.perplexity(r.eval_loss) },
      { title: "Took", num: true, value: (r) => r.seconds, cell: (r) => f.seconds(r.seconds) },
      { title: "Decided", value: (r) => r.decided, cell: (r) => f.date(r.decided) },
      { title: "Record", value: (r) => r.record, cell: (r) => ident(r.record) },
    ],
  });
  const refusedText = el("p", { class: "note", hidden: true }), long = el("p", { class: "note", role: "status", hidden: true }), fetched = el("span", { class: "note", role: "status" });
  const fetching = async (what) => {
    earlier.disabled = everyRound.disabled = true;
    try {
      await what();
    } catch (err) {
      if (!gone.signal.aborted) fetched.textContent = err.message;
    }
    earlier.disabled = everyRound.disabled = false;
  };
  const path = `/runs/${encodeURIComponent(id)}`;
  const earlier = el("button", { type: "button", class: "small", hidden: true, on: { click: () => fetching(async () => {
    const recent = run.rounds, to = (older[0]?.round ?? recent[0].round) - 1;
    const before = await allRounds(id, Math.max(1, to - 99), to, { signal: gone.signal });
    older = [...before, ...older.filter((r) => r.round > to), ...recent];
    older = [...new Map(older.map((r) => [r.round, r])).values()];
    fetched.textContent = "";
    draw();
  }) } }, "Show 100 earlier rounds");
  const everyRound = el("button", { type: "button", class: "small", hidden: true, on: { click: () => fetching(async () => {
    const all = await allRounds(id, 1, run.round, { signal: gone.signal, progress: (n) => { fetched.textContent = `${f.count(n)} of ${f.plural(run.round, "round")}`; } });
    save(`${id.slice(0, 14)}-all-rounds.csv`, csvBlob(rounds.grid(all)));
    fetched.textContent = `${f.plural(all.length, "round")} saved`;
  }) } }, "CSV of all rounds");
  const cloned = el("span", { class: "note", role: "status" }, "All settings, from which the same are launched again; also by moot run clone.");
  const runFile = el("button", { type: "button", class: "small", on: { click: async () => {
    try {
      save(`${run.name || "run"}.toml`, new Blob([(await get(`${path}/file`)).toml], { type: "application/toml" }));
    } catch (err) {
      set(cloned, foreign(err.message));
    }
  } } }, "Run file");
  const course = courseCard(id, () => again());
  let again = () => {};
  const feed = el("ol");
  const none = el("p", { class: "empty" }, "nothing yet");
  const manifest = el("div");
  const ids = el("div");

  function draw() {
    if (!run) return;
    const list = history.rounds;
    const x = axes[by];
    const points = (of) => list.map((r) => [x.of(r), of(r), false]).filter((p) => p[1] !== null && p[1] !== undefined && !Number.isNaN(p[0]));
    const train = points((r) => r.train_loss), b = best(list);
    set(long, history.behind ? `${f.count(history.read)} of ${f.count(history.head)} rounds are read; the rest comes in a moment.`
      : history.whole ? null : `Of ${f.plural(run.round, "round")} the charts draw ${f.count(list.length)}: of each stretch those with the lowest and the highest figures, each as it was, and the last hundred. The running mean is over all.`);
    long.hidden = !history.behind && history.whole;
    losses.update({ x, log: log2, series: [
      { name: "train", kind: "line", tone: 0, faint: mean, points: train },
      { name: "eval", kind: "mark", tone: 1, points: points((r) => r.eval_loss) },
      ...(mean ? [{ name: "train, running mean (EMA 0.9)", kind: "line", tone: 2, smooth: true, points: points((r) => r.train_mean ?? null) }] : []),
      ...(b && !Number.isNaN(x.of(b)) ? [{ name: "best eval", kind: "ring", tone: 1, points: [[x.of(b), b.eval_loss, false]] }] : []),
    ] });
    const rate = (r, n) => (r.seconds > 0 ? n / r.seconds : null);
    speed.update({ x, zero: true, series: [
      { name: "all peers", kind: "line", points: points((r) => rate(r, r.round_tokens)) },
      { name: "this node", kind: "line", points: points((r) => (r.own_tokens === undefined ? null : rate(r, r.own_tokens))) },
    ] });
    const byRound = axes.round;
    const bars = (of, note) => list.map((r) => [r.round, of(r), note(r)]);
    tokens.update({ x: byRound, series: [{ name: "tokens", kind: "bar", points: bars((r) => r.round_tokens, () => false) }] });
    seats.update({ x: byRound, zero: true, whole: true, series: [
      { name: "seats", kind: "step", points: bars((r) => r.seats, () => false) },
      { name: "contributions", kind: "line", points: bars((r) => r.deltas, () => false) },
    ] });
    deltas.update({ x: byRound, zero: true, whole: true, series: [
      { name: "accepted", kind: "step", points: list.map((r) => [r.round, r.deltas, ""]) },
      { name: "refused", kind: "step", points: list.map((r) => [r.round, r.refused, (r.reasons ?? []).join(", ")]) },
    ] });
    bytes.update({ x: byRound, bytes: true, series: [{ name: "deltas", kind: "bar", points: bars((r) => r.bytes, () => false) }] });
    const last = list.at(-1), plain = last && 4 * run.manifest.adapter_parameters * last.deltas;
    bytesText.textContent = plain && last.bytes ? `Deltas as published, once for each round; each goes to all other seats. ${f.decimal(plain / last.bytes, 1)} times smaller than in 32-bit floats.` : "Deltas as published, once for each round.";
    times.update({ x: byRound, series: [{ name: "time", plain: "certified", alt: "provisional", kind: "bar", points: bars((r) => r.seconds, (r) => !r.certified) }] });
    if (totals) {
      peers.update(totals.peers);
      refused.update(totals.refusals);
      refusedText.hidden = totals.refused <= totals.refusals.length;
      refusedText.textContent = `The last ${f.count(totals.refusals.length)} of ${f.count(totals.refused)}.`;
    }
    const first = run.rounds[0]?.round ?? 1;
    const end = older.at(-1);
    if (end && !run.rounds.some((r) => r.record === end.record || r.parent === end.record)) older = []; // another branch, or rounds between were missed
    if (older.length) older = [...older.filter((r) => r.round < first), ...run.rounds];
    const shown = older.length ? older : run.rounds;
    rounds.update(shown);
    earlier.hidden = !shown.length || shown[0].round <= 1;
    everyRound.hidden = earlier.hidden;
    drawTiles();
  }

  // drawCoverage says which rows were trained on, or why that cannot be told.
  function drawCoverage(c, err) {
    if (err) {
      coverNote.textContent = `It cannot be told: ${err.message}.`;
      return;
    }
    coverShards.textContent = `${shardText(c)}. ${leakText(c)}${c.round < run.round ? ` Counted up to round ${f.count(c.round)} so far.` : ""}`;
    covered.update(c.grid, `${shardText(c)}.`);
    coverNote.textContent = coverText(c);
    cover = c;
    drawTiles();
  }

  function drawTiles() {
    const evals = history.rounds.map((r) => r.eval_loss).filter((v) => v !== null && v !== undefined);
    const last = run.eval_loss ?? evals.at(-1);
    const change = evals.length > 1 ? last - evals[0] : null;
    const others = run.members.filter((m) => m.peer !== me);
    const speed = others.reduce((n, m) => n + (m.tokens_per_second || 0), run.tokens_per_second || run.members.find((m) => m.peer === me)?.tokens_per_second || 0);
    const tile = (k, v, note) => el("div", null, el("dt", null, k), el("dd", null, v), el("dd", { class: "note" }, note || "\u00a0"));
    set(tiles, el("dl", null,
      tile("Rounds", f.count(run.trained_rounds), run.max_rounds ? `of ${f.count(run.max_rounds)}` : ""),
      tile("Tokens", f.compact(run.tokens), run.max_tokens ? `of ${f.compact(run.max_tokens)}` : ""),
      tile("Eval loss", f.loss(last), last !== undefined && last !== null && `perplexity ${f.perplexity(last)}${change === null ? "" : `, ${change > 0 ? "+" : "−"}${Math.abs(change).toFixed(4)} since the first`}`),
      tile("Train loss", f.loss(run.train_loss), "nats per token"),
      tile("Seats", f.count(run.seats), `of at most ${f.count(run.max_seats)}; ${f.plural(others.length + (run.joined ? 1 : 0), "peer")} online`),
      tile("Coverage", cover?.rows ? f.percent(cover.seen / cover.rows) : "–", cover?.rows ? `of rows; ${f.decimal(cover.draws / cover.rows)} passes` : "not known yet"),
      tile("Certified", f.count(run.certified_rounds), `of ${f.plural(run.round, "round")}`),
      tile("Deltas", f.count(totals?.entered), `entered, ${f.count(totals?.refused)} refused`),
      tile("Swarm speed", f.compact(speed), "tokens/s, as members say")));
  }

  // drawCurrent shows the round that is not decided yet: whose deltas this
  // node holds, and whom it waits for.
  function drawCurrent() {
    const n = run.round + 1;
    current.hidden = run.final || !["training", "waiting"].includes(run.state) || run.next_seats.length === 0;
    if (current.hidden) return;
    const held = new Set(log.filter((e) => e.type === "round.commit" && e.run === run.id && e.n === n).map((e) => e.peer));
    const list = (seats) => seats.map((s, i) => [i ? ", " : "", peer(s.peer, me)]);
    const here = run.next_seats.filter((s) => held.has(s.peer)), awaited = run.next_seats.filter((s) => !held.has(s.peer));
    const last = history.rounds.at(-1);
    const begun = last?.decided ? (Date.now() - new Date(last.decided).getTime()) / 1000 : null;
    const period = last?.tempo?.next_deadline_s ?? run.manifest.period_s;
    const at = last?.decided && clockOf(new Date(last.decided).getTime(), period);
    clearTimeout(soon);
    if (at && Number.isFinite(at.next)) soon = setTimeout(drawCurrent, Math.min(1000 * at.next + 50, 2 ** 31 - 1));
    const names = !at || at.named;
    set(current, el("h2", null, `Round ${f.count(n)} now`), facts([
      ["Phase", run.phase],
      begun !== null && ["Begun", `${f.ago(last.decided)}; a round is meant to take ${f.seconds(period)}`],
      ["Deltas here", el("span", null, `${here.length} of ${f.plural(run.next_seats.length, "seat")}`, here.length ? ": " : "", list(here))],
      ["Waiting for", awaited.length === 0 ? "nobody" : names ? el("span", null, list(awaited)) : `${f.plural(awaited.length, "seat")}, named when four fifths of the time are over, in ${f.seconds(at.next)}`],
      at && ["Deadline", at.late ? `${f.seconds(-at.left)} ago: who is awaited is late, and is left out when the others agree` : `in ${f.seconds(at.left)}`],
    ]));
  }

  const optimizers = { "adamw": "AdamW", "adamw-8bit": "AdamW in eight bits", "sgd": "SGD" };

  function drawManifest() {
    const m = run.manifest;
    const n = (v) => (v === 0 ? "0" : String(Number(v.toPrecision(6))));
    set(manifest, facts([
      m.mode === "full"
        ? ["Trains", `all ${f.count(m.adapter_parameters)} parameters`]
        : ["Adapter", `LoRA, rank ${m.lora_rank}, alpha ${m.lora_alpha}${m.rslora ? " (rsLoRA)" : ""}, ${f.count(m.adapter_parameters)} parameters`],
      m.mode !== "full" && ["Targets", foreign((m.lora_targets ?? []).join(", "))],
      ["Inner optimizer", `${optimizers[m.optimizer] ?? m.optimizer}, learning rate ${n(m.learning_rate)} (${m.schedule}, ${f.plural(m.warmup_steps, "step")} of warm-up), `
        + (m.optimizer === "sgd" ? `momentum ${n(m.momentum)}` : `betas ${n(m.beta1)} and ${n(m.beta2)}`) + `, decay ${n(m.weight_decay)}, clip ${n(m.clip)}`],
      ["Steps per round", `${f.count(m.min_steps)} to ${f.count(m.max_steps)}, of ${f.plural(m.batch_samples, "sample")} of at most ${f.plural(m.sequence_tokens, "token")}`],
      ["Outer optimizer", `Nesterov, learning rate ${f.short(m.outer_learning_rate)}, momentum ${f.short(m.outer_momentum)}`],
      ["Codec", `${f.plural(m.codec_bits, "bit")} per value`],
      ["Period", f.seconds(m.period_s)],
      ["Begins with", f.plural(m.min_peers, "peer")],
      ["Eval loss", `on ${f.plural(m.eval_samples, "held-out sample")}, measured by ${m.ends ? "all seats" : m.eval_peers ? `${f.plural(m.eval_peers, "seat")} drawn by lot` : "each node for itself"}`],
      ["Model", el("span", null, ident(run.model), ` ${f.bytes(m.model_bytes)}, licence `, foreign(m.model_licence || "not stated"))],
      ["Data", el("span", null, ident(run.dataset), ` ${f.bytes(m.dataset_bytes)}, licence `, foreign(m.data_licence || "not stated"))],
      ["Template", foreign(m.template)],
      ["Seed", Number.isSafeInteger(m.seed) ? String(m.seed) : `about ${m.seed.toPrecision(15)}`],
      ["Version", String(m.version)],
    ]));
    set(ids, facts([
      ["Run", copyable(run.id, "the run's ID")],
      ["Head", copyable(run.head, "the CID of the head")],
      ["State", copyable(run.state_cid, "the CID of the state")],
      ["Launcher", copyable(run.launcher, "the launcher's peer ID")],
      ["Created", f.date(run.created)],
    ]));
  }

  function drawOnline({ samples }) {
    const points = (of) => samples.map((s) => [new Date(s.time).getTime(), of(s), false]);
    online.update({ x: axes.time, zero: true, whole: true, series: [
      { name: "online", kind: "step", points: points((s) => s.online) },
      { name: "at work", kind: "step", points: points((s) => s.working) },
      { name: "seats", kind: "step", points: points((s) => s.seats) },
    ] });
  }

  // drawAlerts shows what needed a person in the last hour.
  function drawAlerts() {
    const list = log.filter((e) => e.type === "alert" && (!e.run || e.run === run.id) && Date.now() - new Date(e.time).getTime() < 3_600_000).slice(-3).reverse();
    alerts.hidden = list.length === 0;
    set(alerts, list.map((e) => el("p", null, el("time", { datetime: e.time }, f.clock(e.time)), " ", eventText(e))));
  }

  function drawSamples() {
    const kept = keptSamples(id);
    set(samples, kept ? kept.prompts.map((p, i) => [el("h3", null, foreign(p)), el("div", { class: "grid three" }, kept.columns.map((c) => el("div", null, el("p", { class: "note" }, c.title),
      el("div", { class: "answer short", tabindex: 0, role: "region", "aria-label": `${c.title}, prompt ${i + 1}` }, answer(c.texts[i])))))])
      : el("p", { class: "empty" }, "Nothing was asked in this tab yet."),
    el("p", null, el("a", { href: `#/runs/${encodeURIComponent(id)}/samples` }, "Ask the base model, the best and the last round")));
  }

  // drawNetwork shows how this node reaches the peers of the run.
  function drawNetwork({ peers: all }) {
    const here = all.filter((p) => p.runs?.includes(id)), times = here.map((p) => p.rtt_ms).filter(Boolean).sort((a, b) => a - b);
    const by = Object.entries(kinds).map(([k, text]) => [here.filter((p) => p.where === k).length, text]).filter(([n]) => n).map(([n, text]) => `${n} ${text}`).join(", ");
    set(net, here.length ? ring(here) : null, el("p", null, here.length ? `${f.plural(here.length, "peer")} of this run connected: ${by}. ${times.length ? `Median round trip ${f.decimal(times[Math.floor(times.length / 2)], 1)} ms.` : ""}` : "No peer of this run is connected."),
      el("p", null, el("a", { href: "#/network" }, "All of the network")));
  }

  function drawFeed() {
    const mine = log.filter((e) => !e.run || e.run === run.id).slice(-100).reverse();
    set(feed, mine.map((e) => el("li", null, el("time", { datetime: e.time }, f.clock(e.time)), " ", eventText(e))));
    none.hidden = mine.length > 0;
  }

  return {
    title: "Run",
    node: el("div", null, head, runPages(id, ""), alerts, why, tiles, current, course.node,
      choice, long,
      el("div", { class: "grid" }, card("Loss", losses.node), card("Swarm speed", speed.node), card("Peers online", el("p", { class: "note" }, "As this node heard; at a change, and every ten minutes."), online.node), card("Timeline", phases.node),
        access !== "public" && card("Samples", samples), access !== "public" && card("Network", net), card("Seats and contributions", seats.node),
        card("Deltas", deltas.node), card("Tokens per round", tokens.node), card("Bytes per round", bytesText, bytes.node), card("Time per round", times.node),
        card("Coverage of the data", coverShards, covered.node, coverNote)),
      card("Contributions by peer", peers.node),
      card("Members now", el("p", { class: "note" }, "What peers say of themselves; nobody vouches for it."), members.node),
      card("Refused deltas", refusedText, refused.node),
      card("Rounds", rounds.node, el("p", { class: "tools" }, earlier, everyRound, fetched)),
      card("Seats of the next round", next.node),
      el("div", { class: "grid" },
        card("Manifest", manifest, access !== "public" && el("p", { class: "tools" }, runFile, cloned)),
        el("div", { class: "stack" }, card("Identifiers", ids), card("Events", none, el("div", { class: "feed", tabindex: 0, role: "region", "aria-label": "Events" }, feed))))),
    events: (e) => !e.run || !run || e.run === run.id,
    leave() {
      clearTimeout(soon);
      gone.abort();
    },
    async refresh(signal) {
      me ||= (await get("/status", signal)).peer;
      run = await get(`/runs/${encodeURIComponent(id)}`, signal);
      const now = run;
      const sums = !totals || totalsOf !== now.head || totals.round < totals.head ? get(`${path}/peers`, signal) : totals;
      [totals] = await Promise.all([sums, history.update(now.rounds, signal)]);
      totalsOf = now.head;
      this.every = history.behind || totals.round < totals.head ? 1500 : undefined;
      if (signal.aborted) return;
      if (run.round !== coverRound || !coverKnown) {
        coverRound = run.round;
        // What is asked with the next round is not overtaken by an answer to this one.
        const last = () => !signal.aborted && turn === coverTurn, turn = ++coverTurn;
        get(`/runs/${encodeURIComponent(id)}/online`, signal).then((o) => { if (last()) drawOnline(o); }, () => {}); // it is asked again with the next round
        get(`/runs/${encodeURIComponent(id)}/coverage`, signal).then((c) => { if (last()) { coverKnown = c.round >= run.round; drawCoverage(c); } }, (err) => { if (last()) drawCoverage(null, err); });
      }
      this.title = run.name;
      document.title = `${run.name} – moot`;
      set(head, el("h1", { tabindex: -1 }, foreign(run.name || "(no name yet)")), badge(run.state, f.stateKind(run.state)),
        el("span", { class: "phase" }, `phase ${run.phase}`), run.joined ? null : el("span", { class: "phase" }, "this node is not in it"),
        !run.joined && access === "full" && el("a", { class: "action", href: `#/begin/${encodeURIComponent(id)}` }, "Join it"));
      set(why, foreign((run.why || "this node is training").replace(/\.$/, "")), ". ", el("span", { class: "guarantee" }, "Guarantee: ", el("strong", null, run.guarantee.level), " – ", foreign(run.guarantee.text), "."));
      again = this.again;
      course.update(run);
      members.update(run.members);
      next.update(run.next_seats);
      draw();
      drawCurrent();
      phases.update(log, run.id, (n) => run.rounds.find((r) => r.round === n - 1)?.tempo?.next_deadline_s ?? run.manifest.period_s);
      drawAlerts();
      if (access !== "public") {
        drawSamples();
        if (performance.now() - reached > REACH_MS) {
          reached = performance.now();
          get("/peers", signal).then((p) => { if (!signal.aborted) drawNetwork(p); }, () => {}); // it is asked again
        }
      }
      paint(manifest, drawManifest);
      paint(feed, drawFeed);
    },
  };
}

const endings = { rounds: "all rounds are trained", tokens: "all tokens are trained", "target-loss": "the loss is low enough", plateau: "the loss fell no more", order: "it was stopped" };

// courseCard shows what orders made of a run, and lets who takes part in it
// order something. done is called when it did.
function courseCard(id, done) {
  const about = el("div"), said = el("p", { class: "problem", role: "alert", hidden: true }), sent = el("p", { class: "note", role: "status" });
  let asked = false;
  const order = async (request) => {
    said.hidden = true;
    try {
      await change("POST", `/runs/${encodeURIComponent(id)}/order`, request);
      sent.textContent = "Ordered. What the launcher orders takes effect with the next round; what others order, when peers with two thirds of the work order the same.";
    } catch (err) {
      said.hidden = false;
      set(said, foreign(err.message), err.hint ? " – " : "", err.hint ? foreign(err.hint) : "");
    }
    done();
  };
  const button = (text, fn) => el("button", { type: "button", on: { click: fn } }, text);
  const pause = button("Pause the run", () => order({ action: "pause" })), resume = button("Resume the run", () => order({ action: "resume" }));
  const stop = button("Stop the run", () => {
    asked = !asked;
    stop.textContent = asked ? "Stop it for everybody, for good" : "Stop the run";
    if (!asked) order({ action: "stop" });
  });
  stop.addEventListener("blur", () => { asked = false; stop.textContent = "Stop the run"; });
  let sure = false;
  const leave = button("Leave the run", async () => {
    sure = !sure;
    leave.textContent = sure ? "Leave it; what was pulled stays" : "Leave the run";
    if (sure) return;
    said.hidden = true;
    try {
      await change("POST", `/runs/${encodeURIComponent(id)}/leave`, {});
      sent.textContent = "This node left the run.";
    } catch (err) {
      said.hidden = false;
      set(said, foreign(err.message), err.hint ? " – " : "", err.hint ? foreign(err.hint) : "");
    }
    done();
  });
  leave.addEventListener("blur", () => { sure = false; leave.textContent = "Leave the run"; });
  const name = uid("rounds");
  const rounds = el("input", { id: name, type: "number", min: 1, max: 1_000_000 });
  const extend = button("Set the rounds", () => order({ action: "set", rounds: Number(rounds.value) }));
  const controls = el("div", null, el("p", { class: "tools" }, pause, resume, stop), el("p", { class: "tools" }, el("label", { for: name }, "Over after so many rounds"), rounds, extend));
  const mine = el("div", null, el("p", { class: "tools" }, leave), said, sent);
  const node = el("section", { class: "card", hidden: true }, el("h2", null, "Course of the run"), about, controls, mine);
  return {
    node,
    update(run) {
      const c = run.course, may = access === "full" && run.joined && !run.final;
      node.hidden = !may && !c && !run.ended && !(access === "full" && (run.joined || sent.textContent));
      controls.hidden = !may;
      leave.hidden = access !== "full" || !run.joined;
      pause.hidden = Boolean(c?.paused);
      resume.hidden = !c?.paused;
      if (!rounds.value && run.max_rounds) rounds.value = run.max_rounds;
      set(about, facts([
        run.ended && ["Ended", endings[run.ended] ?? run.ended],
        ["Orders", c ? `${f.count(c.orders)} took effect${c.paused ? "; it is paused" : ""}${c.stopped ? "; it is stopped" : ""}` : "none; it goes as its run file says"],
        ...(run.pending_orders ?? []).map((o) => ["Waits", [f.plural(o.peers.length, "peer"), " ordered: ", foreign(o.action),
          o.needed ? `; they did ${f.percent(o.work)} of the audited work, ${f.percent(o.needed)} are needed` : "; it takes effect with the next round"]]),
        ["Over after", [run.max_rounds && f.plural(run.max_rounds, "round"), run.max_tokens && `${f.compact(run.max_tokens)} tokens`].filter(Boolean).join(" or ") || "never by itself"],
        c?.rate && ["Learning rate", `${f.short(c.rate)} × that of the run file`],
      ]));
    },
  };
}

const tokensOf = (r) => r.contributions.reduce((n, c) => n + c.tokens, 0);

const reasons = (p) => Object.entries(p.reasons ?? {}).map(([r, n]) => `${r} ${n}×`).join(", ");
