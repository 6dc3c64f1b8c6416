// What a run trained, as files.

import { access, download, get, run as operate } from "./api.js";
import { el, copyable, facts, foreign, ident, save, set, uid } from "./dom.js";
import { table } from "./table.js";
import { best, historyOf } from "./rounds.js";
import { runPages } from "./pages.js";
import * as f from "./format.js";

export function exportView(id) {
  const history = historyOf(id);
  const head = el("div", { class: "head" });
  const name = uid("export");
  let run = null, abort = null, chosen = "best";
  const field = (label, control, help) => el("p", { class: "field" }, el("label", { for: control.id }, label), control, help && el("span", { class: "note" }, help));
  const round = el("select", { id: `${name}-round` });
  const format = el("select", { id: `${name}-format` }, [
    ["peft", "PEFT: safetensors and adapter_config.json"], ["gguf", "GGUF, for llama.cpp"], ["merged", "merged checkpoint (to a folder)"],
  ].map(([value, text]) => el("option", { value }, text)));
  const folder = el("input", { id: `${name}-folder`, type: "text", spellcheck: "false", autocomplete: "off", placeholder: "/home/me/adapter" });
  const fetchIt = el("button", { type: "submit", class: "main", disabled: access === "public" }, "Download");
  const write = el("button", { type: "button", disabled: access !== "full" }, "Write to the folder");
  const stop = el("button", { type: "button", disabled: true }, "Stop");
  const status = el("p", { class: "note", role: "status" }, "nothing was asked for yet");
  const report = el("div", { class: "card", hidden: true });
  const form = el("form", { class: "card" },
    el("div", { class: "row" }, field("Round", round), field("Format", format)),
    field("Folder on the daemon's machine", folder, "An absolute path. It is made; if it is there, it must be empty. A download needs none."),
    el("p", { class: "tools" }, fetchIt, write, stop));
  round.addEventListener("change", () => { chosen = round.value; });
  format.addEventListener("change", buttons);

  function buttons() {
    fetchIt.disabled = Boolean(abort) || !run || access === "public" || format.value === "merged";
    write.disabled = Boolean(abort) || !run || access !== "full";
    stop.disabled = !abort;
  }

  // during does something, and says how it ended.
  async function during(what) {
    if (abort || !run) return;
    abort = new AbortController();
    buttons();
    try {
      status.textContent = "asked; the adapter is tested before it is handed out";
      await what(abort.signal);
    } catch (err) {
      set(status, abort.signal.aborted ? "stopped" : [foreign(err.message), err.hint ? " – " : "", err.hint ? foreign(err.hint) : ""]);
    } finally {
      abort = null;
      buttons();
    }
  }

  form.addEventListener("submit", (e) => {
    e.preventDefault();
    during(async (signal) => {
      const { name: file, blob } = await download(`/runs/${encodeURIComponent(id)}/adapter?round=${round.value}&format=${format.value}`, signal);
      save(file, blob);
      status.textContent = `${file}: ${f.bytes(blob.size)}; it stood its test`;
    });
  });
  write.addEventListener("click", () => during(async (signal) => {
    const which = round.value === "best" ? { best: true } : round.value === "last" ? {} : { round: Number(round.value) };
    const e = await operate(`/runs/${encodeURIComponent(id)}/export`, { dir: folder.value.trim(), format: format.value, ...which }, (p) => {
      status.textContent = p.text || (p.total ? `${p.phase}: ${f.count(p.done)} of ${f.count(p.total)}` : p.phase);
    }, signal);
    status.textContent = "written";
    tell(e);
  }));
  stop.addEventListener("click", () => abort?.abort());

  function tell(e) {
    report.hidden = false;
    set(report, el("h2", null, "Report"), facts([
      ["Folder", foreign(e.dir, { class: "foreign mono" })], ["Format", e.format], ["Round", String(e.round)], ["State", copyable(e.state, "the state's CID")],
      ["Test", e.test ? `read back: its logits are ${e.test.difference.toExponential(2)} away from base model and adapter (at most ${e.test.tolerance.toExponential(1)}), and ${e.test.effect.toExponential(2)} from the base model` : "not made: the base model is not here"],
      ...(e.warnings ?? []).map((w) => ["Warning", foreign(w)]),
    ]), el("ul", { class: "plain" }, e.files.map((x) => el("li", null, foreign(x.name, { class: "foreign mono" }), ` ${f.bytes(x.bytes)}, SHA-256 `, el("code", { class: "wrap" }, x.sha256)))));
  }

  const rounds = table({
    caption: "Rounds to export", file: `${id.slice(0, 14)}-eval`, empty: "No round has ended yet.", key: (r) => r.round, sort: -1, limit: 20,
    columns: [
      { title: "Round", num: true, value: (r) => r.round, cell: (r) => el("a", { href: `#/runs/${encodeURIComponent(id)}/rounds/${r.round}` }, String(r.round)) },
      { title: "Eval loss", num: true, hint: "nats per token, on held-out rows", value: (r) => r.eval_loss, cell: (r) => f.loss(r.eval_loss) },
      { title: "Perplexity", num: true, hint: "on held-out rows", value: (r) => r.eval_loss, cell: (r) => f.perplexity(r.eval_loss) },
      { title: "Train loss", num: true, value: (r) => r.train_loss, cell: (r) => f.loss(r.train_loss) },
      { title: "Tokens", num: true, value: (r) => r.tokens, cell: (r) => f.compact(r.tokens) },
      { title: "Agreement", value: (r) => (r.certified ? "certified" : "provisional") },
      { title: "Note", value: (r) => (r === best(history.rounds) ? "the best" : "") },
      { title: "Record", value: (r) => r.record, cell: (r) => ident(r.record) },
    ],
  });

  return {
    title: "Export",
    node: el("div", null, head, runPages(id, "export"),
      el("p", { class: "lead" }, "Each export is read back and compared: its logits must differ from the base model's and equal those of base model and adapter. One that does not stand this is not handed out."),
      form, status, report, el("section", { class: "card" }, el("h2", null, "Rounds"), rounds.node)),
    events: (e) => e.run === id && (e.type === "round.done" || e.type === "eval.done"),
    leave() { abort?.abort(); },
    async refresh(signal) {
      run = await get(`/runs/${encodeURIComponent(id)}`, signal);
      await history.update(run.rounds, signal);
      if (signal.aborted) return;
      document.title = `Export of ${run.name} – moot`;
      set(head, el("h1", { tabindex: -1 }, "Export of ", foreign(run.name || "a run")));
      const b = best(history.rounds);
      set(round, b && el("option", { value: "best" }, `the best: ${b.round}, eval loss ${f.loss(b.eval_loss)}`), el("option", { value: "last" }, `the last: ${run.round}`),
        [...history.rounds].reverse().slice(0, 200).map((r) => el("option", { value: r.round }, `${r.round}${r.eval_loss === null ? "" : `, eval loss ${f.loss(r.eval_loss)}`}`)));
      round.value = chosen;
      if (round.selectedIndex < 0) round.selectedIndex = 0;
      rounds.update(history.rounds);
      buttons();
    },
  };
}
