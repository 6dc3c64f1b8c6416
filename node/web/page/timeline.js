// What this node did in the last rounds, against the time: a row for each
// phase, and a mark for each delta that came.

import { el, svg, set, save, shortID, uid } from "./dom.js";
import { csvBlob } from "./csv.js";
import { saveSVG, savePNG } from "./picture.js";
import { onWidth, paint } from "./paint.js";
import { linear } from "./axis.js";
import * as f from "./format.js";

const ROUNDS = 4; // that are drawn
const PHASES = ["idle", "sync", "assembly", "train", "exchange", "vote"];

// spans makes rows {round, phase, from, to} of events, oldest first; the last
// one lasts until now.
export function spans(log, run, now = Date.now()) {
  const out = [];
  for (const e of log) {
    if (e.run !== run || e.type !== "round.phase") continue;
    const at = new Date(e.time).getTime();
    const last = out.at(-1);
    if (last) last.to = at;
    out.push({ round: e.n, phase: e.phase, from: at, to: now });
  }
  const newest = Math.max(0, ...out.map((s) => s.round));
  return out.filter((s) => s.round > newest - ROUNDS && s.to > s.from && s.phase !== "done");
}

// arrivals are the deltas of those rounds, {round, peer, at}.
export function arrivals(log, run, from) {
  return log.filter((e) => e.run === run && e.type === "round.commit").map((e) => ({ round: e.n, peer: e.peer, at: new Date(e.time).getTime() })).filter((a) => a.at >= from);
}

// clockOf says how far a round is that began at begun and has deadline seconds,
// times in milliseconds: whom it waits for is worth naming when four fifths of
// them are over, and who is not there at the end is late.
export function clockOf(begun, deadline, now = Date.now()) {
  const past = (now - begun) / 1000, left = deadline - past;
  return { past, left, named: past >= 0.8 * deadline, late: left <= 0, next: past < 0.8 * deadline ? 0.8 * deadline - past : left > 0 ? left : Infinity };
}

// dropped are the deltas of those rounds that did not enter, {round, peer, why, at};
// without a peer they are seats that sent none, n of them.
export function dropped(log, run, from) {
  const out = [];
  for (const e of log) {
    const at = new Date(e.time).getTime();
    if (e.run !== run || e.type !== "round.done" || !e.round || at < from) continue;
    for (const x of e.round.refused) out.push({ round: e.n, peer: x.peer, why: x.reason, at });
    const none = e.round.seats - new Set([...e.round.contributions, ...e.round.refused].map((x) => x.peer)).size;
    if (none > 0) out.push({ round: e.n, n: none, why: `${f.plural(none, "seat")} sent none`, at });
  }
  return out;
}

// timeline makes the picture. update takes the events, the run, and a function
// of a round's number: after how many seconds it has its deadline.
export function timeline(file) {
  const picture = svg("svg", { role: "img", class: "plot" });
  const frame = el("div", { class: "frame" }, picture);
  const rows = el("div");
  const details = el("details", null, el("summary", null, "Show as table"), rows);
  const clip = uid("clip");
  let list = [], came = [], gone = [], due = [], width = 0;

  const grid = () => [
    ["round", "what", "from", "to", "seconds"],
    ...list.map((s) => [s.round, s.phase, new Date(s.from).toISOString(), new Date(s.to).toISOString(), (s.to - s.from) / 1000]),
    ...came.map((a) => [a.round, `delta of ${a.peer}${a.late ? ", late" : ""}`, new Date(a.at).toISOString(), "", ""]),
    ...gone.map((x) => [x.round, x.peer ? `delta of ${x.peer} dropped: ${x.why}` : x.why, new Date(x.at).toISOString(), "", ""]),
  ];
  const button = (name, fn) => el("button", { type: "button", class: "small", "aria-label": `Save the timeline as ${name}`, on: { click: fn } }, name);
  const key = (path, cls) => svg("svg", { class: "key", viewBox: "0 0 14 14", width: 14, height: 14, "aria-hidden": "true" }, svg("path", { class: cls, d: path }));
  const legend = el("p", { class: "legend" }, el("span", null, key("M7 2l5 5l-5 5l-5 -5Z", "s1 mark"), "delta"), el("span", null, key("M7 2l5 5l-5 5l-5 -5Z", "s1 ring"), "late"),
    el("span", null, key("M2 2l10 10m0 -10l-10 10", "gone"), "dropped"), el("span", null, key("M7 1V13", "due"), "deadline"));
  const node = el("div", { class: "chart" }, legend, frame, el("div", { class: "tools" }, details, el("span", { class: "buttons" },
    button("CSV", () => save(`${file}.csv`, csvBlob(grid()))),
    button("SVG", () => saveSVG(picture, file)),
    button("PNG", () => savePNG(picture, file)))));

  function draw() {
    if (!width) return;
    const phases = PHASES.filter((p) => list.some((s) => s.phase === p));
    const height = 26 * (phases.length + 1) + 54;
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("height", height);
    if (list.length === 0) {
      set(picture, svg("title", null, "Rounds by time: nothing yet"), svg("text", { class: "none", x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing to draw yet"));
      return;
    }
    const x0 = 76, x1 = width - 14;
    const xs = linear([list[0].from, list.at(-1).to], { time: true, tight: true, most: Math.max(2, Math.floor((x1 - x0) / 90)) });
    const px = (t) => x0 + (x1 - x0) * xs.at(t);
    const bottom = 26 * (phases.length + 1) + 14;
    const begins = list.filter((s, i) => i > 0 && s.round !== list[i - 1].round);
    const last = list.at(-1);
    set(picture,
      svg("title", null, `Rounds ${list[0].round} to ${last.round} by time: round ${last.round} is in phase ${last.phase} for ${f.seconds((last.to - last.from) / 1000)}`),
      svg("defs", null, svg("clipPath", { id: clip }, svg("rect", { x: x0, y: 0, width: x1 - x0, height }))),
      phases.map((p, i) => [
        svg("text", { class: "tick", x: x0 - 8, y: 26 * i + 31, "text-anchor": "end" }, p),
        svg("line", { class: "grid", x1: x0, x2: x1, y1: 26 * i + 40, y2: 26 * i + 40 }),
      ]),
      svg("text", { class: "tick", x: x0 - 8, y: 26 * phases.length + 31, "text-anchor": "end" }, "deltas"),
      begins.map((s) => [
        svg("line", { class: "axis dashed", x1: px(s.from), x2: px(s.from), y1: 4, y2: bottom }),
        px(s.from) < x1 - 56 && svg("text", { class: "tick", x: px(s.from) + 4, y: 12 }, `round ${s.round}`),
      ]),
      svg("g", { "clip-path": `url(#${clip})` },
        list.map((s) => svg("rect", { class: `span${s.phase === "train" ? " work" : ""}`, x: px(s.from), y: 26 * phases.indexOf(s.phase) + 22, width: Math.max(1, px(s.to) - px(s.from)), height: 14 },
          svg("title", null, `round ${s.round}, ${s.phase}: ${f.seconds((s.to - s.from) / 1000)}`))),
        due.map((t) => svg("line", { class: "due", x1: px(t), x2: px(t), y1: 16, y2: bottom }, svg("title", null, `deadline, ${f.clock(t)}`))),
        came.map((a) => svg("path", { class: a.late ? "s1 ring" : "s1 mark", d: `M${px(a.at)} ${26 * phases.length + 21}l5 5l-5 5l-5 -5Z` }, svg("title", null, `round ${a.round}: delta of ${shortID(a.peer)}${a.late ? ", late" : ""}`))),
        gone.map((x) => svg("path", { class: "gone", d: `M${px(x.at) - 5} ${26 * phases.length + 21}l10 10m0 -10l-10 10` }, svg("title", null, `round ${x.round}: ${x.peer ? `delta of ${shortID(x.peer)} dropped, ${x.why}` : x.why}`)))),
      svg("line", { class: "axis", x1: x0, x2: x1, y1: bottom, y2: bottom }),
      xs.ticks.map((t) => svg("text", { class: "tick", x: Math.min(px(t), x1 - 22), y: bottom + 16, "text-anchor": "middle" }, f.clock(t))),
      svg("text", { class: "name", x: (x0 + x1) / 2, y: bottom + 34, "text-anchor": "middle" }, "time of day"));
  }

  function drawTable() {
    if (!details.open) {
      rows.replaceChildren();
      return;
    }
    const late = came.filter((a) => a.late).map((a) => `${a.round} ${a.peer}`);
    const cells = [...list.map((s) => [s.round, s.phase, f.clock(s.from), f.seconds((s.to - s.from) / 1000)]), ...came.map((a) => [a.round, `delta of ${shortID(a.peer)}${late.includes(`${a.round} ${a.peer}`) ? ", late" : ""}`, f.clock(a.at), ""]),
      ...gone.map((x) => [x.round, x.peer ? `delta of ${shortID(x.peer)} dropped: ${x.why}` : x.why, f.clock(x.at), ""])];
    set(rows, el("div", { class: "scroll", role: "region", "aria-label": "Timeline as a table", tabindex: 0 }, el("table", null,
      el("thead", null, el("tr", null, ["Round", "What", "Began", "Took"].map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", null, cells.map((row) => el("tr", null, row.map((c, i) => el(i ? "td" : "th", i ? null : { scope: "row" }, String(c)))))))));
  }

  details.addEventListener("toggle", drawTable);
  onWidth(frame, (w) => {
    width = w;
    paint(node, redraw);
  });
  const redraw = () => {
    draw();
    drawTable();
  };
  return {
    node,
    update(log, run, deadline) {
      list = spans(log, run);
      const begins = new Map(list.filter((s) => !["idle", "sync", "assembly"].includes(s.phase)).map((s) => [s.round, s.from]).reverse()); // of each round
      due = [...begins].map(([n, t]) => t + 1000 * deadline(n));
      came = list.length ? arrivals(log, run, list[0].from) : [];
      for (const a of came) a.late = begins.has(a.round) && clockOf(begins.get(a.round), deadline(a.round), a.at).late;
      gone = list.length ? dropped(log, run, list[0].from) : [];
      paint(node, redraw);
    },
  };
}
