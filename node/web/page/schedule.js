// The weekly schedule: windows as in the configuration, and a grid of hours to
// change them with mouse or keyboard.

import { el, uid } from "./dom.js";

export const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const NAMES = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MINUTES = 24 * 60;

// parse reads windows such as "Mon-Fri 22:00-07:00" into the minutes of a week,
// or returns a sentence that says what is wrong. No window is: always.
export function parse(lines) {
  const week = new Uint8Array(7 * MINUTES);
  const list = lines.map((l) => l.trim()).filter(Boolean);
  if (!list.length) return week.fill(1);
  for (const line of list) {
    const m = /^(\S+)\s+(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})$/.exec(line);
    const days = m && daysOf(m[1]);
    if (!days) return `“${line}” is not a window such as “Mon-Fri 22:00-07:00”`;
    const from = Number(m[2]) * 60 + Number(m[3]), to = Number(m[4]) * 60 + Number(m[5]);
    if (from >= MINUTES || to > MINUTES || m[3] > "59" || m[5] > "59" || from === to) return `“${line}” has no such time`;
    for (const d of days) {
      const end = to > from ? to : to + MINUTES; // on the next day
      for (let t = from; t < end; t++) week[(d * MINUTES + t) % week.length] = 1;
    }
  }
  return week;
}

function daysOf(text) {
  if (text.toLowerCase() === "daily") return [0, 1, 2, 3, 4, 5, 6];
  const out = [];
  for (const part of text.split(",")) {
    const [a, b = a, more] = part.split("-").map((d) => DAYS.findIndex((x) => x.toLowerCase() === d.toLowerCase()));
    if (a < 0 || b < 0 || more !== undefined) return null;
    for (let d = a; ; d = (d + 1) % 7) {
      out.push(d);
      if (d === b) break;
    }
  }
  return out;
}

// hours says of each hour of a week whether it is on: 1, off: 0, or in part:
// 0.5.
export function hours(week) {
  return Array.from({ length: 7 * 24 }, (_, h) => {
    const on = week.slice(h * 60, h * 60 + 60).reduce((n, v) => n + v, 0);
    return on === 60 ? 1 : on === 0 ? 0 : 0.5;
  });
}

// windows writes hours as windows, those of equal days together. All on is no
// window; a window that reaches midnight goes on with the next day's.
export function windows(on) {
  if (on.every((v) => v === 1)) return [];
  const key = (d) => {
    const parts = [];
    for (let h = 0; h < 24; h++) {
      if (on[d * 24 + h] !== 1) continue;
      const begin = h;
      while (h < 24 && on[d * 24 + h] === 1) h++;
      parts.push(`${String(begin).padStart(2, "0")}:00-${String(h).padStart(2, "0")}:00`);
    }
    return parts;
  };
  const byWindow = new Map();
  for (let d = 0; d < 7; d++) for (const w of key(d)) byWindow.set(w, [...(byWindow.get(w) ?? []), d]);
  return [...byWindow].map(([w, days]) => `${ranges(days)} ${w}`);
}

function ranges(days) {
  if (days.length === 7) return "daily";
  const out = [];
  for (let i = 0; i < days.length; i++) {
    let j = i;
    while (j + 1 < days.length && days[j + 1] === days[j] + 1) j++;
    out.push(j > i + 1 ? `${DAYS[days[i]]}-${DAYS[days[j]]}` : days.slice(i, j + 1).map((d) => DAYS[d]).join(","));
    i = j;
  }
  return out.join(",");
}

// scheduleEditor makes the editor; save(lines) is called with the windows.
export function scheduleEditor(save) {
  const id = uid("schedule");
  const text = el("textarea", { id: `${id}-text`, rows: 3, spellcheck: "false", "aria-describedby": `${id}-help` });
  const wrong = el("p", { class: "problem", role: "alert", hidden: true });
  const apply = el("button", { type: "button", class: "main", disabled: true }, "Save the schedule");
  const cells = [];
  let on = hours(parse([])), at = 0, saved = "", brush = null, may = true;

  const cell = (d, h) => {
    const td = el("td", { role: "gridcell", tabindex: -1 });
    td.addEventListener("pointerdown", (e) => {
      if (!may) return;
      e.preventDefault();
      td.releasePointerCapture?.(e.pointerId); // so that the neighbours see it too
      brush = on[d * 24 + h] === 1 ? 0 : 1;
      paint(d, h, brush);
      td.focus();
    });
    td.addEventListener("pointerenter", () => { if (brush !== null) paint(d, h, brush); });
    cells.push(td);
    return td;
  };
  addEventListener("pointerup", () => { brush = null; });
  const rows = DAYS.map((day, d) => el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader" }, day), Array.from({ length: 24 }, (_, h) => cell(d, h))));
  const grid = el("table", { class: "hours", role: "grid", "aria-label": "Hours of the week in which this machine may compute", "aria-multiselectable": "true" },
    el("thead", null, el("tr", { role: "row" }, el("th", { scope: "col", role: "columnheader" }, el("span", { class: "hidden" }, "Day")), Array.from({ length: 24 }, (_, h) => el("th", { scope: "col", role: "columnheader" }, el("span", { class: h % 6 ? "hidden" : "tick" }, String(h).padStart(2, "0")))))),
    el("tbody", null, rows));
  grid.addEventListener("keydown", (e) => {
    const d = Math.floor(at / 24), h = at % 24;
    const to = { ArrowLeft: [d, h - 1], ArrowRight: [d, h + 1], ArrowUp: [d - 1, h], ArrowDown: [d + 1, h], Home: [d, 0], End: [d, 23] }[e.key];
    if (e.key === " " || e.key === "Enter") {
      e.preventDefault();
      if (may) paint(d, h, on[at] === 1 ? 0 : 1);
    } else if (to) {
      e.preventDefault();
      const value = on[at];
      const [nd, nh] = [Math.min(6, Math.max(0, to[0])), Math.min(23, Math.max(0, to[1]))];
      if (e.shiftKey && may) paint(nd, nh, value === 1 ? 1 : 0);
      move(nd * 24 + nh);
      cells[at].focus();
    }
  });
  grid.addEventListener("focusin", (e) => {
    const i = cells.indexOf(e.target);
    if (i >= 0) move(i);
  });

  function move(i) {
    cells[at].tabIndex = -1;
    at = i;
    cells[at].tabIndex = 0;
  }

  function paint(d, h, v) {
    on = on.map((x, i) => (i === d * 24 + h ? v : x));
    text.value = windows(on).join("\n");
    draw();
  }

  function draw() {
    cells.forEach((td, i) => {
      const d = Math.floor(i / 24), h = i % 24, word = on[i] === 1 ? "on" : on[i] === 0 ? "off" : "in part";
      td.className = `hour ${on[i] === 1 ? "on" : on[i] === 0 ? "off" : "part"}`;
      td.setAttribute("aria-selected", String(on[i] === 1));
      td.setAttribute("aria-label", `${NAMES[d]} ${h} to ${h + 1}: ${word}`);
    });
    const none = on.every((x) => x === 0);
    wrong.hidden = !none;
    if (none) wrong.textContent = "No hour is left. To let it not work at all, pause it.";
    apply.disabled = !may || none || text.value.trim() === saved;
  }

  text.addEventListener("input", () => {
    const week = parse(text.value.split("\n"));
    wrong.hidden = typeof week !== "string";
    if (typeof week === "string") {
      wrong.textContent = week;
      apply.disabled = true;
      return;
    }
    on = hours(week);
    draw();
  });
  const preset = (title, lines) => el("button", { type: "button", class: "small", on: { click: () => { if (may) { text.value = lines.join("\n"); on = hours(parse(lines)); draw(); } } } }, title);
  apply.addEventListener("click", () => save(text.value.split("\n").map((l) => l.trim()).filter(Boolean)));
  cells[0].tabIndex = 0;
  draw();

  return {
    node: el("div", { class: "schedule" }, el("div", { class: "scroll", role: "region", "aria-label": "Schedule" }, grid),
      el("p", { class: "note" }, "Local time of the daemon's machine. Arrow keys move, space turns an hour on or off, shift with an arrow key paints."),
      el("p", { class: "tools" }, preset("Always", []), preset("Nights", ["daily 22:00-07:00"]), preset("Nights and weekends", ["Mon-Fri 22:00-07:00", "Sat,Sun 00:00-24:00"])),
      el("p", { class: "field" }, el("label", { for: text.id }, "As in the file, one window a line; none: always"), text, el("span", { class: "note", id: `${id}-help` }, "such as Mon-Fri 22:00-07:00 or Sat,Sun 00:00-24:00")),
      wrong, el("p", { class: "tools" }, apply)),
    // update shows what is in effect, unless somebody is changing it.
    update(lines, allowed) {
      may = allowed;
      text.readOnly = !may;
      const now = lines.join("\n").trim();
      if (text.value.trim() === saved) {
        text.value = now;
        const week = parse(lines);
        if (typeof week !== "string") on = hours(week);
      }
      saved = now;
      draw();
    },
  };
}
