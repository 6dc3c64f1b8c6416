// The second step of a launch: rows that are here, or files of rows that are
// looked into, checked and imported. Files of the browser's machine are sent to
// the daemon first; it forgets them after the import, or after a day.

import { access, change, get, run as operate, APIError } from "./api.js";
import { fillIn, valuesOf } from "./draft.js";
import { el, badge, facts, foreign, harmless, ident, set } from "./dom.js";
import { field, job, sample } from "./job.js";
import { pick } from "./pick.js";
import { table } from "./table.js";
import { begunID, upload } from "./upload.js";
import * as f from "./format.js";

// forms are the forms of rows with their fields; those with ? may be missing.
const forms = {
  alpaca: ["instruction", "input?", "output"], messages: ["messages"], sharegpt: ["conversations", "system?"], completion: ["prompt", "completion"], text: ["text"],
};
const formWords = {
  "": "what the first row shows", alpaca: "instruction and output (Alpaca)", messages: "messages with role and content", sharegpt: "conversations (ShareGPT)",
  completion: "prompt and completion", text: "plain text",
};
const problemKinds = { invalid: "bad", leak: "bad", dropped: "calm", cut: "calm", repeated: "calm" };

const short = (s, most = 60) => (s.length <= most ? harmless(s) : `${harmless(s.slice(0, most))}…`);
const linesOf = (area) => area.value.split("\n").map((s) => s.trim()).filter(Boolean);
const check = (label, box) => el("label", { class: "check" }, box, " ", label);
const options = (words) => Object.entries(words).map(([v, text]) => el("option", { value: v }, text));

// sent keeps what was uploaded of the files of the browser's machine.
function sent() {
  const uploads = new WeakMap(); // of File to Upload
  return {
    // paths are where the files lie on the daemon's machine; those that are not
    // there are sent.
    async paths(files, signal, progress) {
      if (!files.length) return [];
      const { uploads: there, max_bytes: most } = await get("/uploads", signal);
      const out = [];
      for (const file of files) {
        if (file.size > most) throw new APIError(413, "E_USAGE", `${file.name} has ${f.count(file.size)} bytes, at most ${f.count(most)} are taken`, "copy it to the machine of mootd and give its path");
        if (!there.some((u) => u.id === uploads.get(file)?.id)) uploads.set(file, await upload(file, progress, signal));
        out.push(uploads.get(file).file);
      }
      return out;
    },
    // forget removes them, or what was sent of them, from the daemon's machine.
    async forget(files) {
      for (const file of files) {
        const id = begunID(file);
        uploads.delete(file);
        if (!id) continue; // nothing was sent of it by this page; what another one sent goes by itself
        try {
          await change("DELETE", `/uploads/${id}`);
        } catch { /* nothing of it is there, or it goes by itself */ }
      }
    },
  };
}

// source are files of this machine, or paths of the daemon's; or one of them.
function source(what, one, changed) {
  const input = el("input", { type: "file", multiple: !one, accept: ".json,.jsonl,.ndjson,.csv,.tsv,.parquet,.txt" });
  const paths = one ? el("input", { type: "text", spellcheck: "false", autocomplete: "off" }) : el("textarea", { rows: 2, spellcheck: "false", placeholder: "/home/me/rows.jsonl" });
  const list = el("ul", { class: "plain" });
  let files = [];
  let before = []; // names of those that were chosen before the page was loaded again
  function draw() {
    before = before.filter((name) => !files.some((file) => file.name === name));
    list.replaceChildren(...before.map((name) => el("li", { class: "note" }, foreign(name), " was chosen before this page was loaded again. Choose it once more; what was sent of it is not sent again.")), ...files.map((file) => el("li", null, foreign(file.name), ` ${f.bytes(file.size)} `, el("button", {
      type: "button", class: "small", "aria-label": `Leave out ${harmless(file.name)}`, on: { click: () => { files = files.filter((x) => x !== file); draw(); input.focus(); changed([file]); } },
    }, "leave out"))));
  }
  input.addEventListener("change", () => {
    const gone = one ? files : [];
    files = one ? [...input.files] : [...files, ...input.files];
    input.value = ""; // the list shows them, and the same one can be chosen again
    draw();
    changed(gone);
  });
  paths.addEventListener("change", () => changed([]));
  return {
    node: el("div", { class: "row" }, field(`${what}, of this computer`, input), field("… or on the machine of mootd", paths, one ? "Its whole path." : "Whole paths, one a line.")),
    list,
    // lock keeps what is chosen as it is.
    lock(on) {
      paths.readOnly = on;
      for (const c of [input, ...list.querySelectorAll("button")]) c.disabled = on;
    },
    get draft() { return { paths: paths.value, files: [...before, ...files.map((file) => file.name)] }; },
    restore(d) {
      paths.value = d.paths;
      before = d.files;
      draw();
    },
    get files() { return files; },
    get paths() { return linesOf(paths); },
    get empty() { return !files.length && !linesOf(paths).length; },
  };
}

// dataStep tells chosen of the data set that was chosen; learner returns the
// model that is to learn, or null.
export function dataStep(chosen, learner) {
  const may = access === "full";
  const list = pick({
    legend: "Data sets on this node", none: "There is none yet: import one below.", chosen,
    label: (d) => [el("strong", null, foreign(d.name || d.id)), " ", ident(d.id), " ", foreign(d.format), `, ${f.plural(d.train_rows, "row")} to train on, ${f.count(d.eval_rows)} held out, ${f.bytes(d.bytes)}, licence `, foreign(d.licence || "not stated")],
  });
  const there = sent();
  const rows = source("Files of rows", false, look), heldOut = source("A file of held-out rows", true, (gone) => { there.forget(gone); stale(); buttons(); });
  const form = el("select", null, options(formWords));
  const mapping = el("div", { class: "row" });
  const template = el("select", null, options({ "": "that of the form", alpaca: "Alpaca's prompt", chat: "the model's chat template", none: "none" }));
  const hold = el("select", null, options({ share: "a share of the rows, drawn at random", file: "a file of its own", none: "none" }));
  const share = el("input", { type: "number", min: 0.1, max: 50, step: 0.1, value: 2 });
  const shuffle = el("input", { type: "checkbox", checked: true }), drop = el("input", { type: "checkbox" });
  const licence = el("input", { type: "text", autocomplete: "off", placeholder: "CC-BY-4.0" }), origin = el("input", { type: "text", autocomplete: "off" });
  const tokens = el("input", { type: "number", min: 2, step: 1, value: 512 });
  const checkButton = el("button", { type: "button" }, "Check all rows"), start = el("button", { type: "submit", class: "main" }, "Import the rows");
  const previews = el("div"), checked = el("div"), result = el("div", { role: "status" });
  const work = job(buttons);
  let reading = false; // what is under way reads the files that are chosen, as they are
  let turns = 0; // of what is checked
  let columns = [], detected = "", suggested = {}; // of the preview
  const taken = new Map(); // which column somebody chose for a field

  const controls = { form, template, hold, share, shuffle, drop, licence, origin, tokens };

  const shareField = field("Held out, in percent", share), fileField = el("div", null, heldOut.node, heldOut.list);
  // stale takes back what was said of other rows, or of another way to read them.
  function stale() {
    turns++;
    set(checked);
    if (!work.busy) work.said.textContent = "";
  }
  function buttons() {
    for (const s of [rows, heldOut]) s.lock(work.busy && reading);
    shareField.hidden = hold.value !== "share";
    fileField.hidden = hold.value !== "file";
    checkButton.disabled = work.busy || !may || rows.empty;
    start.disabled = work.busy || !may || rows.empty || (hold.value === "file" && heldOut.empty);
  }

  // look reads how the files begin.
  function look(gone) {
    reading = false;
    there.forget(gone);
    stale();
    result.replaceChildren();
    buttons();
    if (rows.empty) {
      work.end();
      [columns, detected, suggested] = [[], "", {}];
      previews.replaceChildren();
      map();
      return;
    }
    work.again("the files are looked into", async (signal, progress) => {
      const paths = await all(rows, signal, progress);
      const { files } = await change("POST", "/datasets/preview", { files: paths.slice(0, 20) }, signal);
      columns = [...new Set(files.flatMap((x) => x.columns))];
      detected = files[0].input;
      suggested = files.find((x) => x.suggested)?.suggested ?? {};
      if (Object.keys(suggested).length && !form.value) form.value = Object.keys(forms).find((k) => forms[k].some((n) => n in suggested)) ?? "";
      work.said.textContent = "";
      previews.replaceChildren(...files.map(preview));
      map();
    });
  }

  const all = async (from, signal, progress) => [...await there.paths(from.files, signal, progress), ...from.paths];

  // map shows which column is which field of the form.
  function map() {
    const names = (columns.length && forms[form.value || detected]) || [];
    mapping.replaceChildren(...names.map((n) => {
      const name = n.replace("?", ""), may = n.endsWith("?");
      const select = el("select", null, el("option", { value: "" }, columns.includes(name) ? `its own: ${name}` : may ? "none" : "not chosen"),
        columns.filter((c) => c !== name).map((c) => el("option", { value: c }, short(c))));
      const v = taken.get(name) ?? suggested[name] ?? "";
      select.value = columns.includes(v) && v !== name ? v : "";
      select.addEventListener("change", () => { taken.set(name, select.value); stale(); });
      select.dataset.field = name;
      return field(`${name} is`, select);
    }));
  }

  const fields = () => Object.fromEntries([...mapping.querySelectorAll("select")].filter((s) => s.value).map((s) => [s.dataset.field, s.value]));
  const common = (files) => ({ files, ...(form.value ? { format: form.value } : {}), ...(Object.keys(fields()).length ? { fields: fields() } : {}) });

  function preview(p) {
    const t = table({
      caption: `The first rows of ${short(p.file.replace(/^.*[/\\]/, ""))}`, key: (r) => r.place, columns: [
        { title: "Row", value: (r) => r.place, cell: (r) => foreign(r.place) },
        ...p.columns.map((c, i) => ({ title: short(c), value: (r) => r.values[i]?.text ?? "", cell: (r) => (r.bad ? i === 0 && el("span", { class: "bad" }, foreign(r.bad)) : value(r.values[i])) })),
      ],
    });
    t.update(p.rows);
    return el("div", null, el("h3", null, foreign(p.file.replace(/^.*[/\\]/, ""))),
      el("p", { class: "note" }, `${f.bytes(p.bytes)}; `, p.input ? [`it is ${p.input}: `, foreign(p.why)] : foreign(p.why)), t.node);
  }

  const value = (v) => (!v || !v.kind ? "–" : [foreign(v.text), v.bytes > new TextEncoder().encode(v.text).length && ` (${f.bytes(v.bytes)})`]);

  checkButton.addEventListener("click", () => {
    stale();
    const turn = turns;
    reading = true;
    work.do("the rows are checked", async (signal, progress) => {
      const model = learner();
      const files = await all(rows, signal, progress);
      const held = hold.value === "file" ? await all(heldOut, signal, progress) : [];
      const c = await operate("/datasets/check", {
        ...common(files), ...(held.length ? { eval: held[0] } : {}), problems: 100,
        ...(model ? { model: model.id, ...(template.value ? { template: template.value } : {}), ...(tokens.valueAsNumber >= 2 ? { max_tokens: Math.floor(tokens.valueAsNumber) } : {}) } : {}),
      }, progress, signal);
      if (turn !== turns) { // it was of something else
        work.said.textContent = "";
        return;
      }
      work.said.textContent = verdict(c);
      set(checked, !model && el("p", { class: "note" }, "No model was chosen, so that only the form of the rows was checked: neither tokens nor samples can be told."), c.files.map(report));
    });
  });

  function verdict(c) {
    if (c.invalid) return `${f.count(c.invalid)} of ${f.plural(c.rows, "row")} cannot be trained on: correct them, or have them left out.`;
    if (c.leaks) return `${f.count(c.leaks)} of the held-out rows are trained on too: take them out of one of the files.`;
    if (c.dropped === c.rows) return `None of ${f.plural(c.rows, "row")} gives a sample: choose another template, or a longer row.`;
    return `${f.plural(c.rows, "row")} can be imported.`;
  }

  function report(x) {
    const t = x.tokens, problems = table({
      caption: "Rows that are not trained on as they are", file: "problems", limit: 10, key: (p) => `${p.place} ${p.kind}`, columns: [
        { title: "Row", value: (p) => p.place, cell: (p) => foreign(p.place) },
        { title: "What", value: (p) => p.kind, cell: (p) => badge(p.kind, problemKinds[p.kind]) },
        { title: "Why", value: (p) => p.why, cell: (p) => foreign(p.why) },
      ],
    });
    problems.update(x.problems ?? []);
    return el("div", null, el("h3", null, foreign(x.file.replace(/^.*[/\\]/, ""))), facts([
      ["Form", el("span", null, `${x.input}, `, foreign(x.why))], ["Template", x.template],
      ["Rows", `${f.count(x.rows)}: ${f.count(x.invalid)} invalid, ${f.count(x.dropped)} too long or refused by the template, ${f.count(x.cut)} shortened, ${f.count(x.repeated)} repeated, ${f.count(x.leaks)} trained on too`],
      t && ["Tokens", `${f.count(t.sum)}, ${f.percent(t.counted / Math.max(1, t.sum))} of them counted by the loss`],
      t && ["A sample", `${f.count(t.min)} to ${f.count(t.max)} tokens, median ${f.count(t.median)}, 95 % have at most ${f.count(t.p95)}`],
    ]), x.problems?.length > 0 && problems.node, x.samples?.length > 0 && el("h3", null, "Samples; what is marked counts"),
    (x.samples ?? []).map((s) => el("details", { open: true }, el("summary", null, foreign(s.place)), sample(s))));
  }

  const node = el("form", { class: "import" }, rows.node, rows.list, previews,
    el("div", { class: "row" }, field("Form of the rows", form), field("Template", template, "How a row becomes text.")), mapping,
    el("div", { class: "row" }, field("Held-out rows", hold, "They measure what a run has learned, and are not trained on."), shareField), fileField,
    el("div", { class: "row" }, field("Licence of the data", licence, "For those who join."), field("Where it is from", origin), field("Longest row, in tokens", tokens, "For the check.")),
    check("Order the training rows at random", shuffle), check("Leave out rows that cannot be trained on, and count them", drop),
    el("p", { class: "tools" }, checkButton, start, work.stop), work.said, work.wrong, checked, result);
  form.addEventListener("change", map);
  for (const x of [form, template, tokens, hold]) x.addEventListener("change", stale);
  hold.addEventListener("change", buttons);
  node.addEventListener("submit", (e) => {
    e.preventDefault();
    result.replaceChildren();
    reading = true;
    work.do("the rows are read", async (signal, progress) => {
      const files = await all(rows, signal, progress);
      const held = hold.value === "file" ? await all(heldOut, signal, progress) : [];
      const d = await operate("/datasets/import", {
        ...common(files), ...(hold.value === "share" && share.valueAsNumber > 0 ? { eval_fraction: share.valueAsNumber / 100 } : {}), ...(held.length ? { eval_file: held[0] } : {}),
        shuffle: shuffle.checked, drop_invalid: drop.checked, licence: licence.value.trim(), source: origin.value.trim(), template: template.value,
      }, progress, signal);
      there.forget([...rows.files, ...heldOut.files]);
      work.said.textContent = "";
      set(result, el("p", null, "Imported: ", el("strong", null, foreign(d.name)), `, ${f.plural(d.train_rows, "row")} to train on, ${f.count(d.eval_rows)} held out, ${f.count(d.dropped_rows)} left out.`),
        (d.rejected ?? []).map((r) => el("p", { class: "note" }, foreign(`${r.place}: ${r.why}`))), (d.warnings ?? []).map((w) => el("p", { class: "note" }, foreign(w))));
      list.choose(d);
    });
  });
  buttons();
  const more = el("details", null, el("summary", null, "Import rows"), node);
  let told = false;
  return {
    node: el("div", null, list.node, more),
    get value() { return list.value; },
    get draft() { return { ...valuesOf(controls), taken: [...taken], rows: rows.draft, held: heldOut.draft, id: list.id }; },
    restore(d) {
      fillIn(controls, d);
      for (const [name, column] of d.taken) taken.set(name, column);
      rows.restore(d.rows);
      heldOut.restore(d.held);
      list.want(d.id);
      more.open = told = Boolean(rows.draft.paths || rows.draft.files.length);
      if (!rows.empty) look([]);
      buttons();
    },
    // end stops what is under way, and has the daemon forget what was sent.
    end() {
      work.end();
      there.forget([...rows.files, ...heldOut.files]);
    },
    update(sets) {
      list.update(sets);
      if (!told && !sets.length) more.open = true;
      told = true;
    },
  };
}
