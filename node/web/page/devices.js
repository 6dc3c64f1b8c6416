// What the devices of this machine were used for, in the last hour or day.

import { get } from "./api.js";
import { el, harmless, set, uid } from "./dom.js";
import { chart } from "./chart.js";
import * as f from "./format.js";

const KEY = "moot.span";
const spans = {
  hour: { text: "the last hour", ms: 3_600_000, x: { title: "time of day", time: true, text: (v) => f.clock(v) } },
  day: { text: "the last day", ms: 86_400_000, x: { title: "time of day", time: true, text: (v) => f.clock(v).slice(0, 5) } },
};
const MOST = 4; // devices that are drawn

// deviceCharts are the curves. refresh asks for what is new; if nothing is
// known of this machine they are not there.
export function deviceCharts() {
  let span = localStorage.getItem(KEY), samples = [], gap = 0, asked = 0;
  if (!spans[span]) span = "hour";
  const again = () => { refresh(new AbortController().signal).catch(() => {}); };

  const group = uid("span");
  const choice = el("fieldset", { class: "choice" }, el("legend", null, "Show"), Object.entries(spans).map(([k, { text }]) => {
    const input = el("input", { type: "radio", name: group, value: k, checked: k === span });
    input.addEventListener("change", () => {
      span = k;
      samples = [];
      localStorage.setItem(KEY, k);
      again();
    });
    return el("label", null, input, text);
  }));
  const part = (title, options) => {
    const c = chart({ title, ...options });
    const note = el("p", { class: "note" });
    return { chart: c, note, node: el("section", { hidden: true }, el("h3", null, title), c.node, note) };
  };
  const load = part("Load", { unit: "%", y: f.short, file: "load" });
  const heat = part("Temperature", { unit: "°C", y: f.count, file: "temperature" });
  const power = part("Power", { unit: "W", y: f.count, file: "power" });
  const memory = []; // of each device
  const memories = el("div", { class: "grid" });
  const node = el("div", { hidden: true }, choice, el("div", { class: "grid" }, load.node, heat.node, power.node), memories);

  async function refresh(signal) {
    const mine = span, turn = ++asked;
    const last = samples.at(-1)?.time;
    const u = await get(`/usage?span=${mine}${last ? `&after=${encodeURIComponent(last)}` : ""}`, signal);
    if (turn !== asked) return; // another question is on its way
    gap = u.step_s * 2500;
    if (!u.samples.length && samples.length) return;
    samples = [...samples, ...u.samples.map((s) => ({ ...s, at: new Date(s.time).getTime() }))];
    const from = (samples.at(-1)?.at ?? 0) - spans[mine].ms;
    samples = samples.filter((s) => s.at > from);
    draw();
  }

  // names are the devices of the samples, the newest first to be known.
  const names = () => [...new Set([...samples].reverse().flatMap((s) => s.devices.map((d) => d.name)))].slice(0, MOST);
  const points = (of) => samples.map((s) => [s.at, of(s), ""]).filter((p) => p[1] != null);
  const device = (s, name) => s.devices.find((d) => d.name === name);

  function show(p, series) {
    series = series.filter((s) => s.points.length).map((s) => ({ smooth: true, gap, ...s }));
    p.node.hidden = !series.some((s) => !s.limit);
    if (!p.node.hidden) p.chart.update({ x: spans[span].x, zero: !p.loose, bytes: p.bytes, series });
  }

  function draw() {
    const list = names();
    node.hidden = !samples.length;
    const each = (of) => list.map((name, i) => ({ name: harmless(name), kind: "line", tone: i, points: points((s) => of(device(s, name) ?? {})) }));
    show(load, [...each((d) => d.util_percent),
      { name: "this node, of all processors", kind: "line", tone: 4, points: points((s) => s.process_percent) },
      { name: "duty: may compute", kind: "step", limit: true, points: points((s) => (s.duty_percent < 100 ? s.duty_percent : null)) }]);
    heat.loose = true;
    show(heat, [...each((d) => d.celsius), { name: "stops above", kind: "step", limit: true, points: points((s) => s.max_celsius) }]);
    set(heat.note, hottest());
    show(power, each((d) => d.watts));
    list.forEach((name, i) => {
      if (memory[i]?.of !== name) {
        memory[i]?.node.remove();
        memory[i] = { of: name, bytes: true, ...part(`Memory of ${harmless(name)}`, { unit: "bytes", y: f.bytes, file: `memory-${i + 1}` }) };
        memories.append(memory[i].node);
      }
      show(memory[i], shares(name));
    });
    for (const m of memory.splice(list.length)) m.node.remove();
  }

  // shares are whose the memory of a device is: this node's, that of others, and
  // what is free. Of a GPU that does not tell whose it is, what is used.
  function shares(name) {
    const at = (fn) => points((s) => {
      const d = device(s, name);
      if (d?.used_bytes == null) return null;
      const others = d.other_bytes ?? (name === "processor" && s.process_bytes != null ? Math.max(0, d.used_bytes - s.process_bytes) : null);
      return fn(d, others);
    });
    return [
      { name: "this node", kind: "line", tone: 0, points: at((d, o) => (o == null ? null : d.used_bytes - o)) },
      { name: "other programs", kind: "line", tone: 1, points: at((d, o) => o) },
      { name: "used, by whom is not known", kind: "line", tone: 2, points: at((d, o) => (o == null ? d.used_bytes : null)) },
      { name: "free", kind: "line", tone: 3, points: at((d) => (d.total_bytes == null ? null : d.total_bytes - d.used_bytes)) },
    ];
  }

  // hottest says in a sentence how hot it was.
  function hottest() {
    const all = samples.flatMap((s) => s.devices.filter((d) => d.celsius != null).map((d) => [d.celsius, s.at, d.name]));
    if (!all.length) return "";
    const [c, at, name] = all.reduce((a, b) => (b[0] > a[0] ? b : a));
    const limit = samples.at(-1).max_celsius;
    return `Highest in ${spans[span].text}: ${c} °C at ${f.clock(at)}, ${harmless(name)}. ${limit ? `It stops above ${limit} °C and goes on at ${limit - 8} °C.` : "No temperature stops it (work.max_temp_c is 0)."}`;
  }

  return { node, refresh };
}
