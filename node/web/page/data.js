// Which data a run was trained on: by shard and pass, how evenly, and whether
// what is held out is.

import { get } from "./api.js";
import { el, facts, foreign, ident, set } from "./dom.js";
import { chart } from "./chart.js";
import { heat } from "./heat.js";
import { runPages } from "./pages.js";
import * as f from "./format.js";

const shardAxis = { title: "shard", whole: true, text: (v) => f.count(v) };

// coverText sums up which rows were trained on.
export function coverText(c) {
  if (!c.rows) return "The data set has no rows.";
  const often = c.passes.map((n, i) => [i, n]).slice(1).filter(([, n]) => n).map(([i, n]) => `${f.percent(n / c.rows)} ${i === 1 ? "once" : i === 2 ? "twice" : i === 8 ? "8 times or more" : `${i} times`}`);
  return `${f.percent(c.seen / c.rows)} of ${f.count(c.rows)} rows were drawn at least once, ${f.decimal(c.draws / c.rows)} times in the mean${often.length ? `: ${often.join(", ")}` : ""}. The draw of each peer follows from the head and its ID.`;
}

// shardText says it of shards.
export const shardText = (c) => `${f.percent(c.shard_count ? c.shards_seen / c.shard_count : 0)} of ${f.plural(c.shard_count, "shard")} seen at least once`;

// skew says how evenly shards were drawn.
export function skew(c) {
  const times = c.shards.filter((s) => s.rows).map((s) => [s.draws / s.rows, s]);
  if (!times.length || !c.draws) return "Nothing was drawn yet.";
  const least = times.reduce((a, b) => (b[0] < a[0] ? b : a)), most = times.reduce((a, b) => (b[0] > a[0] ? b : a));
  const name = (s) => (s.first === s.last ? `shard ${s.first}` : `shards ${s.first} to ${s.last}`);
  return `A row of ${name(least[1])} was trained on ${f.decimal(least[0])} times, one of ${name(most[1])} ${f.decimal(most[0])} times; ${f.decimal(c.draws / c.rows)} in the mean.`;
}

export function leakText(c) {
  if (!c.eval_rows) return "No row is held out.";
  if (c.leaks === null) return `${f.plural(c.eval_rows, "row")} held out; whether one of them is trained on too is not known yet.`;
  return c.leaks ? `${f.count(c.leaks)} of ${f.plural(c.eval_rows, "held-out row")} are trained on too: what is measured on them is memory.` : `None of ${f.plural(c.eval_rows, "held-out row")} is trained on.`;
}

export function dataView(id) {
  const name = id.slice(0, 14), path = `/runs/${encodeURIComponent(id)}`;
  const head = el("div", { class: "head" }), about = el("div"), lead = el("p", { class: "lead" });
  const map = heat("Coverage by shard and pass", `${name}-coverage-map`);
  const seen = chart({ title: "Rows seen", unit: "% of a shard's rows", y: (v) => f.decimal(v, 1), file: `${name}-coverage` });
  const even = chart({ title: "Times trained on", unit: "times a row", y: (v) => f.decimal(v), file: `${name}-skew` });
  const evenText = el("p", { class: "note" }), leaks = el("p");
  const card = (title, ...children) => el("section", { class: "card" }, el("h2", null, title), ...children);
  return {
    title: "Data of a run",
    node: el("div", null, head, runPages(id, "data"), lead,
      card("Coverage by shard and pass", el("p", { class: "note" }, "A pass is as many draws as the data set has rows. Peers draw on their own, so that in one pass some rows come twice and others not at all."), map.node),
      el("div", { class: "grid" }, card("Rows seen", seen.node), card("How evenly", evenText, even.node),
        card("Held-out rows", leaks), card("Data set", about))),
    events: (e) => e.run === id && e.type === "round.done",
    async refresh(signal) {
      const run = await get(path, signal);
      document.title = `Data of ${run.name} – moot`;
      set(head, el("h1", { tabindex: -1 }, "Data of ", foreign(run.name || "a run")));
      const c = await get(`${path}/coverage`, signal);
      if (signal.aborted) return;
      this.every = c.round < run.round ? 1500 : undefined;
      lead.textContent = `${shardText(c)}. ${coverText(c)}${c.round < run.round ? ` Counted up to round ${f.count(c.round)} of ${f.count(run.round)} so far.` : ""}`;
      map.update(c.grid, `${shardText(c)}.`);
      const shards = c.shards.filter((s) => s.rows), range = (s) => (s.first === s.last ? String(s.first) : `${s.first} to ${s.last}`);
      seen.update({ x: shardAxis, zero: true, series: [{ name: "seen", kind: "bar", points: shards.map((s) => [s.first, 100 * s.seen / s.rows, `shard ${range(s)}, ${f.count(s.draws)} draws of ${f.plural(s.rows, "row")}`]) }] });
      even.update({ x: shardAxis, zero: true, series: [{ name: "times", kind: "bar", points: shards.map((s) => [s.first, s.draws / s.rows, `shard ${range(s)}`]) }] });
      evenText.textContent = skew(c);
      leaks.textContent = leakText(c);
      leaks.className = c.leaks ? "problem" : "";
      set(about, facts([
        ["Data set", ident(run.dataset)], ["Licence", foreign(run.manifest.data_licence || "not stated")], ["Size", f.bytes(run.manifest.dataset_bytes)],
        ["To train on", `${f.plural(c.rows, "row")} in ${f.plural(c.shard_count, "shard")}`], ["Held out", f.plural(c.eval_rows, "row")],
        ["Drawn", `${f.plural(c.draws, "draw")} of a row, up to round ${f.count(c.round)}`],
        ["Drawn for nothing", c.lost ? `${f.plural(c.lost, "draw")}, for deltas that were refused (of which the fewest steps are counted) or counted for nothing` : "never"],
      ]));
    },
  };
}
