// The first step of a launch: a model that is here, or a checkpoint folder that
// is imported.

import { access, run as operate } from "./api.js";
import { fillIn, valuesOf } from "./draft.js";
import { el, foreign, ident, set } from "./dom.js";
import { field, job } from "./job.js";
import { pick } from "./pick.js";
import * as f from "./format.js";

const check = (label, box) => el("label", { class: "check" }, box, " ", label);

// modelStep tells chosen of the model that was chosen.
export function modelStep(chosen) {
  const may = access === "full";
  const list = pick({
    legend: "Models on this node", none: "There is none yet: import one below.", chosen,
    label: (m) => [el("strong", null, foreign(m.name || m.id)), " ", ident(m.id), " ", foreign(m.type), `, ${f.compact(m.parameters)} parameters, ${f.bytes(m.bytes)}, licence `, foreign(m.licence || "not stated")],
    off: (m) => !m.trainable && [" It cannot be trained: ", foreign(m.why || "this version does not know it")],
  });
  const dir = el("input", { type: "text", spellcheck: "false", autocomplete: "off", placeholder: "/home/me/models/SmolLM2-135M" });
  const nf4 = el("input", { type: "checkbox" }), copy = el("input", { type: "checkbox" }), links = el("input", { type: "checkbox" });
  const origin = el("input", { type: "text", spellcheck: "false", autocomplete: "off", maxlength: 256, placeholder: "HuggingFaceTB/SmolLM2-135M" });
  const start = el("button", { type: "submit", class: "main" }, "Import the model");
  const result = el("div", { role: "status" });
  const work = job(buttons);
  function buttons() { start.disabled = work.busy || !may || !dir.value.trim(); }
  dir.addEventListener("input", buttons);

  const form = el("form", { class: "import" },
    field("Folder", dir, "The whole path of a Hugging Face checkpoint (config.json, tokenizer, safetensors) on the machine on which mootd runs."),
    field("Where it is from", origin, "For those who join, and for the card of what is exported. Of a folder in the cache of Hugging Face it is known."),
    check("Store the weights in four bits (NF4, for QLoRA): a quarter of the bytes, for a little of the quality", nf4),
    check("Keep a copy, so that the folder may change or go", copy),
    check("Take symbolic links for their files, as in the cache of Hugging Face", links),
    el("p", { class: "tools" }, start, work.stop), work.said, work.wrong, result);
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    result.replaceChildren();
    work.do("the folder is read", async (signal, progress) => {
      const m = await operate("/models/import", {
        dir: dir.value.trim(), ...(nf4.checked ? { quantize: "nf4" } : {}), copy: copy.checked, follow_links: links.checked, ...(origin.value.trim() ? { source: origin.value.trim() } : {}),
      }, progress, signal);
      work.said.textContent = "";
      set(result, el("p", null, "Imported: ", el("strong", null, foreign(m.name)), ` with ${f.compact(m.parameters)} parameters, ${f.bytes(m.bytes)}.`,
        !m.trainable && [" It can be shared, and not be trained: ", foreign(m.why)]), (m.warnings ?? []).map((w) => el("p", { class: "note" }, foreign(w))));
      list.choose(m);
      if (!m.trainable) chosen(null);
    });
  });
  const controls = { dir, origin, nf4, copy, links };
  buttons();
  const more = el("details", null, el("summary", null, "Import a checkpoint"), form);
  let told = false;
  return {
    node: el("div", null, list.node, more),
    get value() { return list.value?.trainable ? list.value : null; },
    get draft() { return { ...valuesOf(controls), id: list.id }; },
    restore(d) {
      fillIn(controls, d);
      list.want(d.id);
      more.open = told = Boolean(d.dir);
      buttons();
    },
    end() { work.end(); },
    update(models) {
      list.update(models);
      if (!told && !models.some((m) => m.trainable)) more.open = true;
      told = true;
    },
  };
}
