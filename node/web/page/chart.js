// Charts in SVG: lines, markers, steps and bars over one axis, with units, a
// readout for mouse and keyboard, a part to look at more closely, the figures as
// a table, and files to save.

import { el, svg, set, save, uid, harmless } from "./dom.js";
import { csvBlob } from "./csv.js";
import * as axis from "./axis.js";
import { saveSVG, savePNG } from "./picture.js";
import { onWidth, paint } from "./paint.js";

const MOST = 1000; // points of a series that are drawn
const PAD = { top: 12, right: 14, bottom: 40 };

// chart makes a chart. options has title, unit (of y), y (writes a value of y)
// and file; tick may write fewer digits. update takes {x: {title, text(v), whole, time}, series: [{name,
// kind, points: [[x, y, note]], alt, tone, faint}], log, zero, whole, bytes}: kind is
// line, mark, ring, step or bar; alt says in words what a point with a note of
// true is, which is drawn hatched, and plain what the others are; a note that is
// text is read out; tone is the number of its colour, by default its own; gap is
// how far two points of a line may be apart, further it is broken; limit makes it
// the line of a setting.
export function chart(options) {
  const { title, unit, y, file, tick = y } = options;
  let data = { x: { title: "", text: String }, series: [] };
  let width = 0, at = -1;
  let stale = false; // there are other figures than those that are drawn
  let part = null; // of x that is shown, or all of it
  const hatchID = uid("hatch"), clipID = uid("clip");

  const picture = svg("svg", { role: "img", class: "plot" });
  const readout = el("p", { class: "readout" });
  const frame = el("div", { class: "frame", tabindex: 0, role: "group", "aria-label": `${title}: chart, the arrow keys read its points, plus and minus show a part of it, 0 all` }, picture);
  const rows = el("div");
  const details = el("details", null, el("summary", null, "Show as table"), rows);
  const button = (name, fn) => el("button", { type: "button", class: "small", "aria-label": `Save ${title} as ${name}`, on: { click: fn } }, name);
  const legend = el("p", { class: "legend" });
  const whole = el("button", { type: "button", class: "small", hidden: true, "aria-label": `Show all of ${title}`, on: { click: () => look(null) } }, "Show all");
  const node = el("div", { class: "chart" }, legend, frame, readout, el("div", { class: "tools" }, details, el("span", { class: "buttons" }, whole,
    button("CSV", () => save(`${file}.csv`, csvBlob(grid()))),
    button("SVG", () => saveSVG(picture, file)),
    button("PNG", () => savePNG(picture, file)))));

  // shown are the points of a series that are in sight: those of the part, and
  // with near the ones next to it, to which lines lead.
  function shown(s, near) {
    if (!part) return s.points;
    const first = s.points.findIndex((p) => p[0] >= part[0]);
    const end = s.points.findLastIndex((p) => p[0] <= part[1]) + 1;
    if (first < 0 || end <= first) return [];
    return near ? s.points.slice(Math.max(0, first - 1), end + 1) : s.points.slice(first, end);
  }

  // look shows a part of x, or all of it.
  function look(to) {
    const all = data.series.flatMap((s) => s.points.map((p) => p[0]));
    const [lo, hi] = ends(all);
    part = to && [Math.max(lo, to[0]), Math.min(hi, to[1])];
    if (part && (!(part[1] > part[0]) || part[0] <= lo && part[1] >= hi)) part = null;
    whole.hidden = !part;
    at = -1;
    draw();
  }

  // columns are the x values of all series, in order, with each one's y: those
  // in sight, or all.
  function columns(all) {
    const m = new Map();
    data.series.forEach((s, i) => {
      for (const p of all ? s.points : shown(s)) {
        if (!m.has(p[0])) m.set(p[0], []);
        m.get(p[0])[i] = p;
      }
    });
    return [...m].sort(([a], [b]) => a - b);
  }

  function grid() {
    const x = (v) => (data.x.time ? new Date(v).toISOString() : v);
    return [
      [data.x.title, ...data.series.map((s) => `${s.name} (${unit})`)],
      ...columns(true).map(([v, ps]) => [x(v), ...data.series.map((_, i) => ps[i]?.[1])]),
    ];
  }

  function drawTable() {
    if (!details.open) {
      rows.replaceChildren();
      return;
    }
    const [head, ...body] = grid();
    set(rows, el("div", { class: "scroll", role: "region", "aria-label": `${title} as a table`, tabindex: 0 }, el("table", null,
      el("thead", null, el("tr", null, head.map((h) => el("th", { scope: "col", class: "num" }, h)))),
      el("tbody", null, body.map(([x, ...ys]) => el("tr", null, el("th", { scope: "row", class: "num" }, data.x.time ? data.x.text(new Date(x).getTime()) : data.x.text(x)),
        ys.map((v) => el("td", { class: "num" }, v === undefined ? "–" : y(v)))))))));
  }

  function draw() {
    if (!width) return;
    stale = false;
    const height = width < 420 ? 200 : 240;
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("height", height);
    const points = data.series.flatMap((s) => shown(s));
    const label = svg("title", null, summary());
    drawLegend();
    if (points.length === 0) {
      set(picture, label, svg("text", { class: "none", x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing to draw yet"));
      readout.textContent = "";
      return;
    }
    const bars = data.series.some((s) => s.kind === "bar");
    const log = data.log && points.every((p) => p[1] > 0);
    const ys = log ? axis.logarithmic(points.map((p) => p[1])) : axis.linear(points.map((p) => p[1]), { zero: bars || data.zero, whole: data.whole, bytes: data.bytes, room: !bars });
    const left = 14 + 7 * Math.max(...ys.ticks.map((t) => tick(t).length));
    const inner = { x0: left, x1: width - PAD.right, y0: height - PAD.bottom, y1: PAD.top };
    const xs = axis.linear(part ?? points.map((p) => p[0]), {
      whole: data.x.whole, time: data.x.time, tight: true, pad: bars ? 0.5 : 0, most: Math.max(2, Math.floor((inner.x1 - inner.x0) / 90)),
    });
    const px = (v) => inner.x0 + (inner.x1 - inner.x0) * xs.at(v);
    const py = (v) => inner.y0 - (inner.y0 - inner.y1) * ys.at(v);
    set(picture, label,
      svg("defs", null, svg("clipPath", { id: clipID }, svg("rect", { x: inner.x0 - 6, y: 0, width: inner.x1 - inner.x0 + 12, height: inner.y0 + 1 }))),
      ys.ticks.map((t) => [
        svg("line", { class: "grid", x1: inner.x0, x2: inner.x1, y1: py(t), y2: py(t) }),
        svg("text", { class: "tick", x: inner.x0 - 6, y: py(t) + 4, "text-anchor": "end" }, tick(t)),
      ]),
      xs.ticks.map((t) => svg("text", { class: "tick", x: clamp(px(t), inner.x0, inner.x1 - 4), y: inner.y0 + 16, "text-anchor": "middle" }, data.x.text(t))),
      svg("line", { class: "axis", x1: inner.x0, x2: inner.x1, y1: inner.y0, y2: inner.y0 }),
      svg("text", { class: "name", x: (inner.x0 + inner.x1) / 2, y: height - 6, "text-anchor": "middle" }, data.x.title),
      svg("g", { "clip-path": part ? `url(#${clipID})` : undefined }, data.series.map((s, i) => drawSeries(s, i, px, py, inner, xs))),
      svg("rect", { class: "pick", x: 0, y: inner.y1, width: 0, height: inner.y0 - inner.y1 }),
      svg("g", { class: "cursor" }));
    picture.plot = { px, py, inner, xs };
    drawCursor();
  }

  function drawSeries(s, i, px, py, inner, xs) {
    const cls = `${s.limit ? "limit" : `s${s.tone ?? i}`} ${s.kind}${s.faint ? " faint" : ""}`;
    const all = shown(s, true);
    const parts = stretches(all, s.gap).map((l) => thin(l, Math.max(2, Math.floor(MOST * l.length / all.length))));
    const points = parts.flat();
    if (s.kind === "bar") return drawBars(s, cls, px, py, inner, xs);
    if (s.kind === "ring") return points.map((p) => svg("circle", { class: cls, cx: px(p[0]), cy: py(p[1]), r: 8 }));
    if (s.kind === "mark") return svg("path", { class: cls, d: points.map((p) => diamond(px(p[0]).toFixed(1), py(p[1]).toFixed(1))).join("") });
    const path = parts.map((l) => l.map((p, n) => {
      const x = px(p[0]).toFixed(1), v = py(p[1]).toFixed(1);
      return n === 0 ? `M${x} ${v}${l.length === 1 ? "h2" : ""}` : s.kind === "step" ? `H${x}V${v}` : `L${x} ${v}`;
    }).join("")).join("");
    const dots = s.kind === "line" && !s.smooth && points.length <= 60 ? points.map((p) => svg("circle", { class: `s${s.tone ?? i} dot${s.faint ? " faint" : ""}`, cx: px(p[0]), cy: py(p[1]), r: 2.5 })) : [];
    return [svg("path", { class: cls, d: path }), dots];
  }

  function drawBars(s, cls, px, py, inner, xs) {
    const gap = Math.abs(px(xs.min + 1) - px(xs.min));
    const w = clamp(gap * 0.7, 1, 48);
    const hatch = svg("pattern", { id: hatchID, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { class: "hatch-back", width: 6, height: 6 }), svg("rect", { class: `${cls} hatch`, width: 3, height: 6 }));
    const bar = (p) => `M${(px(p[0]) - w / 2).toFixed(2)} ${inner.y0}V${Math.min(py(p[1]), inner.y0 - 0.5).toFixed(2)}h${w.toFixed(2)}V${inner.y0}Z`;
    // All bars of a kind are one element: there may be a thousand of them.
    const bars = (alt) => shown(s).filter((p) => (p[2] === true) === alt).map(bar).join("");
    const plain = bars(false), alt = bars(true);
    return [svg("defs", null, hatch), plain && svg("path", { class: cls, d: plain }), alt && svg("path", { class: `${cls} alt`, fill: `url(#${hatchID})`, d: alt })];
  }

  // diamond marks a point other than by colour.
  const diamond = (x, v) => `M${x} ${v}m0 -5l5 5l-5 5l-5 -5Z`;

  function drawLegend() {
    const key = (i, kind, alt, faint, limit) => svg("svg", { class: "key", viewBox: "0 0 24 12", width: 24, height: 12, "aria-hidden": "true" },
      kind === "bar" ? svg("rect", { class: `s${i} bar${alt ? " outline" : ""}`, x: 6, y: 1, width: 12, height: 10 })
        : kind === "mark" ? svg("path", { class: `s${i} mark`, d: diamond(12, 6) })
          : kind === "ring" ? svg("circle", { class: `s${i} ring`, cx: 12, cy: 6, r: 5 })
            : svg("path", { class: `${limit ? "limit" : `s${i}`} ${kind}${faint ? " faint" : ""}`, d: "M1 6H23" }));
    set(legend, data.series.map((s, i) => [
      el("span", null, key(s.tone ?? i, s.kind, false, s.faint, s.limit), s.plain ?? s.name),
      s.alt && s.points.some((p) => p[2] === true) ? el("span", null, key(s.tone ?? i, s.kind, true), s.alt) : null,
    ]), el("span", { class: "unit" }, unit));
  }

  // summary says in one sentence what the picture shows.
  function summary() {
    const parts = data.series.filter((s) => s.points.length).map((s) => {
      const last = s.points.at(-1);
      return `${s.name} from ${y(s.points[0][1])} to ${y(last[1])} ${unit}, ${s.points.length} points`;
    });
    return `${title} by ${data.x.title}: ${parts.join("; ") || "nothing yet"}`;
  }

  function drawCursor() {
    const g = picture.querySelector("g.cursor");
    if (!g || !picture.plot) return;
    const cols = columns();
    if (!cols.length) return; // there are others by now, which are not drawn yet
    if (at >= cols.length) at = cols.length - 1;
    const show = at >= 0 ? at : cols.length - 1;
    const [x, ps] = cols[show];
    const { px, py, inner } = picture.plot;
    readout.textContent = [`${data.x.title} ${data.x.text(x)}`, ...data.series.map((s, i) => ps[i] && point(s, ps[i]))].filter(Boolean).map(harmless).join(" · ");
    if (at < 0) g.replaceChildren();
    else {
      g.replaceChildren(svg("line", { x1: px(x), x2: px(x), y1: inner.y0, y2: inner.y1 }),
        ...data.series.flatMap((s, i) => (ps[i] && s.kind !== "bar" && s.kind !== "ring" ? [svg("circle", { cx: px(x), cy: py(ps[i][1]), r: 4 })] : [])));
    }
  }

  const point = (s, p) => [s.name, y(p[1]), s.name !== unit && !data.bytes && unit, s.alt && `(${p[2] === true ? s.alt : s.plain})`, typeof p[2] === "string" && p[2] && `(${p[2]})`].filter(Boolean).join(" ");

  function nearest(event) {
    const box = picture.getBoundingClientRect();
    const cols = columns();
    if (!picture.plot || !cols.length) return -1;
    const x = event.clientX - box.left;
    let best = 0;
    cols.forEach(([v], i) => {
      if (Math.abs(picture.plot.px(v) - x) < Math.abs(picture.plot.px(cols[best][0]) - x)) best = i;
    });
    return best;
  }

  // A part is picked with a mouse or a finger, from side to side.
  let from = null;
  const inside = (event) => {
    const { x0, x1 } = picture.plot.inner;
    return clamp(event.clientX - picture.getBoundingClientRect().left, x0, x1);
  };
  const pick = (a, b) => {
    const rect = picture.querySelector(".pick");
    rect?.setAttribute("x", Math.min(a, b));
    rect?.setAttribute("width", Math.abs(b - a));
  };
  frame.addEventListener("pointerdown", (e) => {
    if (stale) draw();
    if (e.button !== 0 || !picture.plot || !columns().length) return;
    from = inside(e);
    frame.setPointerCapture(e.pointerId);
  });
  frame.addEventListener("pointermove", (e) => {
    at = nearest(e);
    drawCursor();
    if (from !== null) pick(from, inside(e));
  });
  frame.addEventListener("pointerup", (e) => {
    if (from === null) return;
    const to = inside(e), begun = from;
    from = null;
    pick(0, 0);
    if (Math.abs(to - begun) < 8) return; // a click
    const { inner, xs } = picture.plot;
    const value = (x) => xs.min + (x - inner.x0) / (inner.x1 - inner.x0) * (xs.max - xs.min);
    look([value(Math.min(begun, to)), value(Math.max(begun, to))]);
  });
  frame.addEventListener("pointercancel", () => { from = null; pick(0, 0); });
  frame.addEventListener("dblclick", () => look(null));
  frame.addEventListener("pointerleave", () => { at = -1; drawCursor(); });
  frame.addEventListener("keydown", (e) => {
    if (stale) draw();
    const cols = columns(), n = cols.length;
    if (!n || !picture.plot || e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "+" || e.key === "-") {
      e.preventDefault();
      const { min, max } = picture.plot.xs;
      const middle = at >= 0 ? cols[at][0] : (min + max) / 2, half = (max - min) / (e.key === "+" ? 4 : 1);
      look([middle - half, middle + half]);
      return;
    }
    if (e.key === "0" && part) {
      look(null);
      return;
    }
    const to = { ArrowLeft: (at < 0 ? n - 1 : at) - (at < 0 ? 0 : 1), ArrowRight: at < 0 ? 0 : at + 1, Home: 0, End: n - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    readout.setAttribute("aria-live", "polite");
    at = clamp(to, 0, n - 1);
    drawCursor();
  });
  frame.addEventListener("blur", () => { readout.removeAttribute("aria-live"); at = -1; drawCursor(); });
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
    update(d) {
      if (d.x !== data.x) { // what was looked at is of another axis
        part = null;
        whole.hidden = true;
      }
      data = d;
      stale = true;
      paint(node, redraw);
    },
  };
}

// stretches are the points of a line that are not further apart than gap.
export function stretches(points, gap) {
  if (!gap) return points.length ? [points] : [];
  const out = [];
  for (const p of points) {
    if (!out.length || p[0] - out.at(-1).at(-1)[0] > gap) out.push([]);
    out.at(-1).push(p);
  }
  return out;
}

// ends are the lowest and the highest of values, none of none.
function ends(values) {
  let lo = Infinity, hi = -Infinity;
  for (const v of values) {
    if (v < lo) lo = v;
    if (v > hi) hi = v;
  }
  return values.length ? [lo, hi] : [];
}

const clamp = (v, lo, hi) => Math.max(lo, Math.min(hi, v));

// thin keeps the lowest and the highest of each stretch, so that no outlier is
// lost; the table and the CSV have every point.
export function thin(points, most = MOST) {
  if (points.length <= most) return points;
  const size = Math.ceil((2 * points.length) / most);
  const out = [];
  for (let i = 0; i < points.length; i += size) {
    const part = points.slice(i, i + size);
    const lo = part.reduce((a, b) => (b[1] < a[1] ? b : a)), hi = part.reduce((a, b) => (b[1] > a[1] ? b : a));
    out.push(...(lo === hi ? [lo] : lo[0] < hi[0] ? [lo, hi] : [hi, lo]));
  }
  return out;
}
