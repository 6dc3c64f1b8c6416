// Tables: sortable with mouse and keyboard, saved as CSV.

import { el, save } from "./dom.js";
import { csvBlob } from "./csv.js";
import { paint } from "./paint.js";

const LIMIT = 200; // rows

// table makes a table. A column has title, value(row) for order and CSV, and
// perhaps cell(row), a node or text to show; num is for figures. options has
// caption, columns, file (for CSV), empty (what to say without rows), sort
// (index, or -index-1 for descending), key(row), and limit, the rows that are
// shown at first.
export function table(options) {
  const { caption, columns, file, empty, key = (_, i) => i, limit = LIMIT } = options;
  let rows = [], all = false, told = false;
  let by = options.sort === undefined ? -1 : options.sort < 0 ? -options.sort - 1 : options.sort;
  let down = options.sort < 0;

  const heads = columns.map((c, i) => {
    const button = el("button", { type: "button", class: "sort" }, c.title);
    button.addEventListener("click", () => {
      down = by === i ? !down : Boolean(c.num);
      by = i;
      draw();
    });
    return el("th", { scope: "col", class: c.num && "num", title: c.hint }, button);
  });
  const body = el("tbody");
  const grid = el("table", null, el("thead", null, el("tr", null, heads)), body);
  const none = el("p", { class: "empty" });
  const more = el("button", { type: "button", class: "small" });
  more.addEventListener("click", () => { all = !all; draw(); });
  const csvButton = el("button", { type: "button", class: "small", "aria-label": `Save ${caption} as CSV` }, "CSV");
  const cells = (list) => [columns.map((c) => c.title), ...list.map((r) => columns.map((c) => c.value(r)))];
  csvButton.addEventListener("click", () => save(`${file}.csv`, csvBlob(cells(sorted()))));
  const scroll = el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 }, grid);
  const foot = el("p", { class: "tools" }, more, file && csvButton);
  const node = el("div", { class: "table" }, scroll, none, foot);

  function sorted() {
    if (by < 0) return rows;
    const value = columns[by].value;
    const sign = down ? -1 : 1;
    return rows.map((r, i) => [value(r), i, r]).sort(([a, i], [b, j]) => sign * compare(a, b) || i - j).map(([, , r]) => r);
  }

  function draw() {
    heads.forEach((th, i) => {
      if (i === by) th.setAttribute("aria-sort", down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
    const show = all ? sorted() : sorted().slice(0, limit);
    const focus = body.contains(document.activeElement) ? place(document.activeElement) : null;
    drawRows(show);
    if (focus && !body.contains(document.activeElement)) restore(focus);
    scroll.hidden = rows.length === 0;
    foot.hidden = rows.length === 0;
    none.hidden = rows.length !== 0;
    none.textContent = told ? empty ?? "nothing yet" : "asking …";
    more.hidden = rows.length <= limit;
    more.textContent = all ? `show ${limit}` : `show all ${rows.length}`;
  }

  let lines = new Map(); // of a row's key to its element, and what its cells show

  // drawRows changes what differs, so that a screen reader is not told the same again
  // and a selection stays.
  function drawRows(show) {
    const before = lines;
    lines = new Map();
    const keys = new Set();
    for (const [i, r] of show.entries()) {
      let k = String(key(r, i));
      while (keys.has(k)) k += " ";
      keys.add(k);
    }
    // First, so that those which stay are not moved.
    for (const [k, line] of before) if (!keys.has(k)) line.tr.remove();
    let next = body.firstChild;
    [...keys].forEach((k, i) => {
      const r = show[i];
      const line = before.get(k) ?? newLine(k);
      lines.set(k, line);
      fillLine(line, r);
      if (line.tr === next) next = next.nextSibling;
      else body.insertBefore(line.tr, next);
    });
  }

  function newLine(k) {
    const cells = columns.map((c, n) => el(n === 0 ? "th" : "td", { scope: n === 0 && "row", class: c.num && "num" }));
    return { tr: el("tr", { "data-key": k }, cells), cells, shown: [] };
  }

  function fillLine(line, r) {
    columns.forEach((c, n) => {
      const was = line.shown[n], v = (c.cell ? c.cell(r) : c.value(r)) ?? "–";
      if (v === was || (v instanceof Node && was instanceof Node && v.isEqualNode(was))) return;
      line.shown[n] = v;
      line.cells[n].replaceChildren(...[v].flat(Infinity).filter((x) => x !== false).map((x) => (x instanceof Node ? x : String(x))));
    });
  }

  // place says where in the table a link or button is, so that whoever uses
  // the keyboard does not lose it when the table changes.
  function place(node) {
    const row = node.closest("tr");
    return { key: row.dataset.key, n: [...row.querySelectorAll("a, button")].indexOf(node) };
  }

  function restore({ key, n }) {
    const row = [...body.rows].find((r) => r.dataset.key === key);
    row?.querySelectorAll("a, button")[n]?.focus({ preventScroll: true });
  }

  draw();
  return { node, grid: cells, update(list) { rows = list; told = true; paint(node, draw); } };
}

function compare(a, b) {
  const x = a ?? "", y = b ?? "";
  if (x === "" || y === "") return (x === "") - (y === "");
  if (typeof x === "number" && typeof y === "number") return x - y;
  return String(x) < String(y) ? -1 : String(x) > String(y) ? 1 : 0;
}
