// The same prompt, answered by the base model and by the adapter of a run.

import { get, run as operate } from "./api.js";
import { answer, el, foreign, set, uid } from "./dom.js";
import * as f from "./format.js";

// panel shows one answer, from the question to its end.
function panel(title) {
  const status = el("p", { class: "note", role: "status" }, "not asked yet");
  const text = el("div", { class: "answer", tabindex: 0, role: "region", "aria-label": title });
  const node = el("section", { class: "card" }, el("h2", null, title), text, status);
  return {
    node,
    async ask(makeRequest, signal) {
      text.replaceChildren();
      node.setAttribute("aria-busy", "true");
      status.textContent = "asked";
      try {
        const result = await operate("/generate", await makeRequest(), (p) => {
          status.textContent = p.text || (p.total ? `${p.phase}: ${f.count(p.done)} of ${f.plural(p.total, (p.unit ?? "").replace(/s$/, ""))}` : p.phase);
        }, signal);
        const out = result.outputs[0];
        set(text, answer(out.text));
        const ends = { eos: "it ended by itself", length: "cut at the limit", full: "the model's context is full" };
        status.textContent = `${f.plural(out.tokens, "token")}; ${ends[out.stop] ?? out.stop}`;
        return true;
      } catch (err) {
        set(status, signal.aborted ? "stopped" : [foreign(err.message), err.hint ? " – " : "", err.hint ? foreign(err.hint) : ""]);
        return false;
      } finally {
        node.removeAttribute("aria-busy");
      }
    },
  };
}

export function generateView() {
  const id = uid("generate");
  let runs = [], abort = null;
  const pick = el("select", { id: `${id}-run`, required: true });
  const prompt = el("textarea", { id: `${id}-prompt`, rows: 3, required: true, maxlength: 100_000, spellcheck: "false" });
  const input = el("textarea", { id: `${id}-input`, rows: 2, maxlength: 100_000, spellcheck: "false" });
  const most = el("input", { id: `${id}-most`, type: "number", min: 1, max: 8192, value: 128, required: true });
  const template = el("select", { id: `${id}-template` }, [
    ["", "as the run has it"], ["alpaca", "alpaca"], ["chat", "chat: the model's own"], ["none", "none: continue the text"],
  ].map(([value, text]) => el("option", { value }, text)));
  const ask = el("button", { type: "submit", class: "main" }, "Generate");
  const stop = el("button", { type: "button", disabled: true }, "Stop");
  const none = el("p", { class: "empty", hidden: true }, "This node is in no run yet, so there is no adapter to ask.");
  const base = panel("Base model"), adapter = panel("With the run's adapter");
  const field = (label, control) => el("p", { class: "field" }, el("label", { for: control.id }, label), control);
  const form = el("form", { class: "card" },
    field("Run", pick), field("Prompt", prompt), field("Input (may be empty)", input),
    el("div", { class: "row" }, field("At most so many tokens", most), field("Template", template)),
    el("p", { class: "tools" }, ask, stop));

  form.addEventListener("submit", async (e) => {
    e.preventDefault();
    const run = runs.find((r) => r.id === pick.value);
    if (!run || abort) return;
    abort = new AbortController();
    ask.disabled = true;
    stop.disabled = false;
    const { signal } = abort;
    const request = async (subject) => ({
      prompts: [{ instruction: prompt.value, ...(input.value ? { input: input.value } : {}) }],
      max_tokens: Number(most.value), template: template.value || (await get(`/runs/${encodeURIComponent(run.id)}`, signal)).manifest.template, ...subject,
    });
    // One after the other: the daemon computes one at a time.
    await base.ask(() => request({ model: run.model }), signal);
    if (!signal.aborted) await adapter.ask(() => request({ run: run.id }), signal);
    abort = null;
    ask.disabled = false;
    stop.disabled = true;
  });
  stop.addEventListener("click", () => abort?.abort());

  return {
    title: "Generate",
    node: el("div", null, el("h1", { tabindex: -1 }, "Generate"),
      el("p", { class: "lead" }, "Answers are greedy: the same prompt gives the same text. What a model writes is not vouched for by anybody."),
      none, form, el("div", { class: "grid" }, base.node, adapter.node)),
    events: (e) => e.type === "run.state" || e.type === "round.done",
    leave() { abort?.abort(); },
    async refresh(signal) {
      runs = (await get("/runs", signal)).runs.filter((r) => r.model && r.state !== "known").reverse();
      const chosen = pick.value;
      set(pick, runs.map((r) => el("option", { value: r.id }, `${foreign(r.name).textContent} – round ${r.round}`)));
      if (runs.some((r) => r.id === chosen)) pick.value = chosen;
      none.hidden = runs.length > 0;
      form.hidden = runs.length === 0;
    },
  };
}
