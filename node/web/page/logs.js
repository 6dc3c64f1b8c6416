// What the daemon logged last.

import { get } from "./api.js";
import { el, foreign, save, set, uid } from "./dom.js";
import * as f from "./format.js";

const KEPT = 2000, SHOWN = 500;

export function logsView() {
  const id = uid("logs");
  let lines = [], last = 0;
  const level = el("select", { id: `${id}-level` }, ["debug", "info", "warn", "error"].map((l) => el("option", { value: l, selected: l === "info" }, l === "error" ? "error" : `${l} and above`)));
  const filter = el("input", { id: `${id}-filter`, type: "search", spellcheck: "false", placeholder: "component, message or attribute" });
  const follow = el("input", { id: `${id}-follow`, type: "checkbox", checked: true });
  const list = el("ol");
  const box = el("div", { class: "log", tabindex: 0, role: "region", "aria-label": "Log" }, list);
  const note = el("p", { class: "note" });
  const keep = el("button", { type: "button", class: "small", on: { click: () => save("mootd.log", new Blob([chosen().map(text).join("\n") + "\n"], { type: "text/plain;charset=utf-8" })) } }, "Save as text");
  const order = ["debug", "info", "warn", "error"];
  const text = (e) => [e.time, e.level.toUpperCase(), e.component && `component=${e.component}`, e.message, e.attrs].filter(Boolean).join(" ");

  function chosen() {
    const want = filter.value.trim().toLowerCase();
    return lines.filter((e) => order.indexOf(e.level) >= order.indexOf(level.value) && (!want || text(e).toLowerCase().includes(want)));
  }

  function draw() {
    const all = chosen();
    set(list, all.slice(-SHOWN).map((e) => el("li", null,
      el("time", { datetime: e.time }, f.clock(e.time)), " ", el("span", { class: `level ${e.level}` }, e.level), " ",
      e.component && el("strong", null, foreign(e.component)), e.component && " ", foreign(e.message), e.attrs && " ", e.attrs && foreign(e.attrs, { class: "foreign attrs" }))));
    note.textContent = `${f.plural(all.length, "line")} of ${f.count(lines.length)}${all.length > SHOWN ? `, the last ${SHOWN} are shown` : ""}. What the daemon does not log at its level is not here; the setting log_level changes that.`;
    if (follow.checked) box.scrollTop = box.scrollHeight;
  }

  for (const [node, type] of [[level, "change"], [filter, "input"], [follow, "change"]]) node.addEventListener(type, draw);
  const field = (label, control) => el("p", { class: "field" }, el("label", { for: control.id }, label), control);
  return {
    title: "Logs", every: 2000,
    node: el("div", null, el("h1", { tabindex: -1 }, "Logs"),
      el("div", { class: "card" }, el("div", { class: "row" }, field("Level", level), field("Filter", filter)),
        el("p", { class: "tools" }, el("label", { class: "check" }, follow, " stay at the end"), keep), box, note)),
    events: () => false,
    async refresh(signal) {
      let got = await get(`/logs?limit=1000&after=${last}`, signal);
      if (got.last < last) { // another daemon
        lines = [];
        got = await get("/logs?limit=1000", signal);
      }
      last = got.last;
      lines = [...lines, ...got.entries.filter((e) => !lines.length || e.n > lines.at(-1).n)].slice(-KEPT);
      draw();
    },
  };
}
