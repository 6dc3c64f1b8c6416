// Figures by shard and pass as a picture: a cell is the darker, the more often
// its rows were drawn, and hatched if some were drawn for nothing. The figures
// can be read with mouse and keyboard, as a table, and saved.

import { el, svg, set, save, uid } from "./dom.js";
import { csvBlob } from "./csv.js";
import { saveSVG, savePNG } from "./picture.js";
import { onWidth, paint } from "./paint.js";
import * as f from "./format.js";

// levels are the shades: from so many draws of each row and pass on.
const levels = [0, 0.001, 0.5, 1, 1.5, 2];
export const level = (v) => levels.findLastIndex((from) => v >= from);
const words = ["never", "below 0.5 times", "0.5 to 1", "1 to 1.5", "1.5 to 2", "2 times or more"];

const span = (a, b, word) => (a === b ? `${word} ${f.count(a)}` : `${word}s ${f.count(a)} to ${f.count(b)}`);

// heat makes the picture. update takes the grid of a coverage, and a sentence
// that sums it up.
export function heat(title, file) {
  const picture = svg("svg", { role: "img", class: "plot" });
  const readout = el("p", { class: "readout" });
  const frame = el("div", { class: "frame", tabindex: 0, role: "group", "aria-label": `${title}: picture, the arrow keys read its cells` }, picture);
  const legend = el("p", { class: "legend" });
  const rows = el("div");
  const details = el("details", null, el("summary", null, "Show as table"), rows);
  const hatch = uid("heat");
  let grid = { shards: [], passes: [] }, text = "", width = 0, at = null, inner = null;

  const times = (p, i) => (grid.shards[i].rows ? p.draws[i] / grid.shards[i].rows / (p.last - p.first + 1) : 0);
  const table = () => [
    ["pass", "rounds", "shards", "rows", "draws", "times each row was trained on", "draws for nothing"],
    ...grid.passes.flatMap((p) => grid.shards.map((s, i) => [
      p.first === p.last ? String(p.first) : `${p.first} to ${p.last}`, p.from_round === p.to_round ? String(p.from_round) : `${p.from_round} to ${p.to_round}`,
      s.first === s.last ? String(s.first) : `${s.first} to ${s.last}`, s.rows, p.draws[i], s.rows ? p.draws[i] / s.rows : 0, p.lost[i],
    ])),
  ];
  const button = (name, fn) => el("button", { type: "button", class: "small", "aria-label": `Save ${title} as ${name}`, on: { click: fn } }, name);
  const node = el("div", { class: "chart" }, legend, frame, readout, el("div", { class: "tools" }, details, el("span", { class: "buttons" },
    button("CSV", () => save(`${file}.csv`, csvBlob(table()))),
    button("SVG", () => saveSVG(picture, file)),
    button("PNG", () => savePNG(picture, file)))));

  function draw() {
    if (!width) return;
    const n = grid.shards.length, m = grid.passes.length, high = m > 12 ? 12 : 20;
    const height = Math.max(1, m) * high + 46;
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("height", height);
    drawLegend();
    if (!n || !m) {
      inner = null;
      set(picture, svg("title", null, `${title}: nothing yet`), svg("text", { class: "none", x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing was drawn yet"));
      readout.textContent = "";
      return;
    }
    const x0 = 64, x1 = width - 6, w = (x1 - x0) / n;
    inner = { x0, w, high };
    const every = Math.ceil(16 / high), ticks = Math.max(1, Math.ceil(n / Math.max(1, Math.floor((x1 - x0) / 70))));
    const cell = (p, j, i) => {
      const box = { x: (x0 + i * w).toFixed(2), y: 4 + j * high, width: Math.max(0.5, w - (w > 4 ? 1 : 0)).toFixed(2), height: high - 1 };
      return [svg("rect", { class: `heat h${level(times(p, i))}`, ...box }), p.lost[i] > 0 && svg("rect", { class: "lost", fill: `url(#${hatch})`, ...box })];
    };
    set(picture,
      svg("title", null, `${title}. ${text}`),
      svg("defs", null, svg("pattern", { id: hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, svg("rect", { class: "lost-line", width: 2, height: 6 }))),
      grid.passes.map((p, j) => [
        j % every === 0 && svg("text", { class: "tick", x: x0 - 6, y: 4 + j * high + high / 2 + 4, "text-anchor": "end" }, p.first === p.last ? `pass ${p.first}` : `${p.first}–${p.last}`),
        grid.shards.map((_, i) => cell(p, j, i)),
      ]),
      grid.shards.map((s, i) => i % ticks === 0 && svg("text", { class: "tick", x: x0 + (i + 0.5) * w, y: m * high + 20, "text-anchor": "middle" }, f.count(s.first))),
      svg("text", { class: "name", x: (x0 + x1) / 2, y: height - 6, "text-anchor": "middle" }, "shard"),
      svg("g", { class: "cursor" }));
    drawCursor();
  }

  function drawLegend() {
    const key = (cls, fill) => svg("svg", { class: "key", viewBox: "0 0 14 12", width: 14, height: 12, "aria-hidden": "true" }, svg("rect", { class: cls, fill, x: 1, y: 1, width: 12, height: 10 }));
    set(legend, words.map((word, i) => el("span", null, key(`heat h${i}`), word)), el("span", null, svg("svg", { class: "key", viewBox: "0 0 14 12", width: 14, height: 12, "aria-hidden": "true" },
      svg("rect", { class: "lost-edge", x: 1, y: 1, width: 12, height: 10 }), svg("path", { class: "lost-stroke", d: "M2 10L10 2M6 11L12 5M1 6L6 1" })), "some for nothing"), el("span", { class: "unit" }, "times a row was trained on"));
  }

  function drawCursor() {
    const g = picture.querySelector("g.cursor");
    if (!g || !inner) return;
    const [j, i] = at ?? [grid.passes.length - 1, 0];
    const p = grid.passes[j], s = grid.shards[i];
    if (!p || !s) return;
    if (at) {
      readout.textContent = `${span(s.first, s.last, "shard")}, ${span(p.first, p.last, "pass").replace("passs", "passes")} (${span(p.from_round, p.to_round, "round")}): each row ${f.decimal(s.rows ? p.draws[i] / s.rows : 0)} times, ${f.plural(p.draws[i], "draw")} of ${f.plural(s.rows, "row")}`
        + (p.lost[i] ? `, ${f.plural(p.lost[i], "draw")} more for deltas that were refused or counted for nothing` : "");
      g.replaceChildren(svg("rect", { class: "cell", x: inner.x0 + i * inner.w - 1, y: 3 + j * inner.high, width: inner.w + 1, height: inner.high + 1 }));
    } else {
      readout.textContent = text;
      g.replaceChildren();
    }
  }

  function drawTable() {
    if (!details.open) {
      rows.replaceChildren();
      return;
    }
    const [head, ...body] = table();
    set(rows, el("div", { class: "scroll", role: "region", "aria-label": `${title} as a table`, tabindex: 0 }, el("table", null,
      el("thead", null, el("tr", null, head.map((h, i) => el("th", { scope: "col", class: i > 2 && "num" }, h)))),
      el("tbody", null, body.map(([pass, ...cells]) => el("tr", null, el("th", { scope: "row" }, pass), cells.map((v, i) => el("td", { class: i > 1 && "num" }, i === 4 ? f.decimal(v) : typeof v === "number" ? f.count(v) : v))))))));
  }

  frame.addEventListener("pointermove", (e) => {
    if (!inner) return;
    const box = picture.getBoundingClientRect();
    const i = Math.floor((e.clientX - box.left - inner.x0) / inner.w), j = Math.floor((e.clientY - box.top - 4) / inner.high);
    at = grid.shards[i] && grid.passes[j] ? [j, i] : null;
    drawCursor();
  });
  frame.addEventListener("pointerleave", () => { at = null; drawCursor(); });
  frame.addEventListener("blur", () => { readout.removeAttribute("aria-live"); at = null; drawCursor(); });
  frame.addEventListener("keydown", (e) => {
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[e.key];
    if (!by || !inner || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    readout.setAttribute("aria-live", "polite");
    const within = (v, n) => Math.max(0, Math.min(n - 1, v));
    at = at ? [within(at[0] + by[0], grid.passes.length), within(at[1] + by[1], grid.shards.length)] : [0, 0];
    drawCursor();
  });
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
    update(g, sentence) {
      grid = g;
      text = sentence;
      if (at && !(grid.passes[at[0]] && grid.shards[at[1]])) at = null;
      paint(node, redraw);
    },
  };
}
