// The same prompts, answered by the base model, by the best round and by the
// last one.

import { access, get, run as operate } from "./api.js";
import { answer, el, foreign, save, set, uid } from "./dom.js";
import { csvBlob } from "./csv.js";
import { best, historyOf } from "./rounds.js";
import { runPages } from "./pages.js";
import { keepSamples } from "./sampled.js";
import * as f from "./format.js";

const KEY = "moot.prompts";
const FIRST = "Name three primary colours.\nWrite one sentence about the sea.";
const MOST = 20; // prompts

const ends = { eos: "it ended by itself", length: "cut at the limit", full: "the model's context is full" };

export function samplesView(id) {
  const history = historyOf(id);
  const head = el("div", { class: "head" });
  const name = uid("samples");
  const text = el("textarea", { id: `${name}-prompts`, rows: 4, spellcheck: "false", maxlength: 100_000, required: true });
  text.value = localStorage.getItem(KEY) ?? FIRST;
  const most = el("input", { id: `${name}-most`, type: "number", min: 1, max: 2048, value: 64, required: true });
  const ask = el("button", { type: "submit", class: "main", disabled: access !== "full" }, "Answer them");
  const stop = el("button", { type: "button", disabled: true }, "Stop");
  const keep = el("button", { type: "button", class: "small", hidden: true }, "CSV");
  const status = el("p", { class: "note", role: "status" }, access === "full" ? "not asked yet" : "this page may only look; what computes needs the daemon's own token");
  const answers = el("div", { class: "samples" });
  let run = null, abort = null, shown = null;

  const form = el("form", { class: "card" },
    el("p", { class: "field" }, el("label", { for: text.id }, "Prompts, one a line"), text),
    el("p", { class: "field" }, el("label", { for: most.id }, "At most so many tokens each"), most),
    el("p", { class: "tools" }, ask, stop, keep));

  // subjects are what answers: the base model, the best round unless it is the
  // last, and the last.
  function subjects() {
    const b = best(history.rounds), out = [["base model", { model: run.model }]];
    if (b && b.round !== run.round) out.push([`round ${b.round}, the best`, { run: id, round: b.round }]);
    if (run.round > 0) out.push([`round ${run.round}, ${b?.round === run.round ? "the best and " : ""}the last`, { run: id, round: run.round }]);
    return out;
  }

  function show() {
    if (!shown) return;
    set(answers, shown.prompts.map((p, i) => el("section", { class: "card" }, el("h2", null, foreign(p)),
      el("div", { class: "grid three" }, shown.columns.map((c) => el("div", null, el("h3", null, c.title),
        el("div", { class: "answer", tabindex: 0, role: "region", "aria-label": `${c.title}, prompt ${i + 1}` }, c.error ? "" : answer(c.outputs[i]?.text ?? "")),
        el("p", { class: "note" }, c.error ? foreign(c.error) : c.outputs[i] ? `${f.plural(c.outputs[i].tokens, "token")}; ${ends[c.outputs[i].stop] ?? c.outputs[i].stop}` : "waiting")))))));
  }

  form.addEventListener("submit", async (e) => {
    e.preventDefault();
    const prompts = text.value.split("\n").map((s) => s.trim()).filter(Boolean).slice(0, MOST);
    if (abort || !run || !prompts.length) return;
    localStorage.setItem(KEY, text.value);
    abort = new AbortController();
    ask.disabled = true;
    stop.disabled = false;
    keep.hidden = true;
    const { signal } = abort, list = subjects();
    shown = { prompts, columns: list.map(([title]) => ({ title, outputs: [] })) };
    show();
    for (const [i, [title, subject]] of list.entries()) {
      if (signal.aborted) break;
      const c = shown.columns[i];
      try {
        status.textContent = `${title}: asked`;
        const result = await operate("/generate", { prompts: prompts.map((instruction) => ({ instruction })), max_tokens: Number(most.value), template: run.manifest.template, ...subject }, (p) => {
          status.textContent = `${title}: ${p.text || (p.total ? `${p.phase}, ${f.count(p.done)} of ${f.count(p.total)}` : p.phase)}`;
        }, signal);
        c.outputs = result.outputs;
      } catch (err) {
        c.error = signal.aborted ? "stopped" : `${err.message}${err.hint ? ` – ${err.hint}` : ""}`;
      }
      show();
    }
    status.textContent = signal.aborted ? "stopped" : "done";
    keepSamples(id, shown);
    abort = null;
    ask.disabled = false;
    stop.disabled = true;
    keep.hidden = false;
  });
  stop.addEventListener("click", () => abort?.abort());
  keep.addEventListener("click", () => save(`${id.slice(0, 14)}-samples.csv`, csvBlob([
    ["prompt", ...shown.columns.map((c) => c.title)], ...shown.prompts.map((p, i) => [p, ...shown.columns.map((c) => c.outputs[i]?.text ?? "")])])));

  return {
    title: "Samples",
    node: el("div", null, head, runPages(id, "samples"), el("p", { class: "lead" }, "Answers are greedy: the same prompt gives the same text. What a model writes is not vouched for by anybody."), form, status, answers),
    events: (e) => e.run === id && e.type === "round.done",
    leave() { abort?.abort(); },
    async refresh(signal) {
      run = await get(`/runs/${encodeURIComponent(id)}`, signal);
      await history.update(run.rounds, signal);
      if (signal.aborted) return;
      document.title = `Samples of ${run.name} – moot`;
      set(head, el("h1", { tabindex: -1 }, "Samples of ", foreign(run.name || "a run")));
    },
  };
}
