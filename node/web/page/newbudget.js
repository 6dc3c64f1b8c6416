// The third step of a launch: how long, by how many, with which settings. The
// run file is the one truth: each control reads it and writes into it, and the
// plan is that of its text.

import { access, get, run as operate, APIError } from "./api.js";
import { el, set } from "./dom.js";
import { field, job } from "./job.js";
import { planPanel } from "./plan.js";
import { getKey, setKey } from "./runfile.js";

const SETTLED_MS = 700; // what is typed is planned when nobody types any more

// controls are the keys that have one: label, table, key, whether the value is
// text, and what it says below.
const controls = [
  ["Name", "", "name", true, "For people."],
  ["Rounds", "", "rounds", false, "At most so many."],
  ["Length of a round", "", "period", true, "Such as 10m: peers train 0.8 of it."],
  ["Peers to begin", "", "min_peers", false, "Fewer, and it waits. From 4 on a liar is survived."],
  ["Seats", "", "seats", false, "Peers that train in a round. Empty: 32."],
  ["Trained tokens", "", "max_tokens", false, "The run ends after so many. Empty: after its rounds."],
  ["Rank", "lora", "rank", false, "Of the adapter (LoRA)."],
  ["Learning rate", "inner", "learning_rate", false, "Of the inner steps."],
  ["Steps in a round", "inner", "max_steps", false, "Of each peer, at most."],
  ["Rows in a step", "inner", "batch_samples", false, "More take more memory."],
  ["Longest row", "inner", "sequence_tokens", false, "In tokens. What is longer is shortened or left out."],
  ["Model's licence", "licence", "model", true, "Empty: what the model says."],
  ["Data's licence", "licence", "data", true, "Empty: what the import said."],
];

// budgetStep tells planned of a text and its plan, or null while there is none.
export function budgetStep(planned) {
  const may = access === "full";
  const preset = el("select");
  const fill = el("button", { type: "button" }, "Write it anew");
  const use = el("select", null, ["", "research", "commercial"].map((v) => el("option", { value: v }, v || "not stated")));
  const file = el("input", { type: "file", accept: ".toml,text/plain" });
  const text = el("textarea", { rows: 18, spellcheck: "false", class: "mono" });
  const now = el("button", { type: "button" }, "Plan again"), time = el("button", { type: "button" }, "Time this machine");
  const first = el("p", { class: "note", hidden: true });
  const panel = planPanel();
  const work = job(buttons);
  let source = "run.toml"; // what errors name
  let model = null, data = null, asked = null, timer = 0, shown = false;
  let wanted = ""; // the preset that is to be chosen as soon as it is there
  let turns = 0; // of texts that are fetched: the last one asked for is taken

  const inputs = controls.map(([label, table, key, asText, note]) => {
    const input = el("input", { type: "text", autocomplete: "off", spellcheck: "false", inputmode: asText ? null : "decimal" });
    input.addEventListener("input", () => {
      const v = input.value.trim();
      write(setKey(text.value, table, key, asText || /^[\d.eE+_-]*$/.test(v) ? v : `"${v}"`, asText));
    });
    return { table, key, input, node: field(label, input, note) };
  });
  use.addEventListener("change", () => write(setKey(text.value, "licence", "use", use.value, true)));

  function buttons() {
    fill.disabled = !may;
    now.disabled = time.disabled = work.busy || !may || !text.value.trim();
  }

  // read puts the text's values into the controls, but for the one that is
  // written in.
  function read() {
    for (const { table, key, input } of inputs) {
      const v = getKey(text.value, table, key);
      if (input !== document.activeElement && input.value !== v) input.value = v;
    }
    const made = getKey(text.value, "licence", "use");
    use.value = made === "unstated" ? "" : made;
  }

  // write makes t the run file, and plans it soon.
  function write(t) {
    if (t !== text.value) text.value = t;
    read();
    buttons();
    if (t !== asked) {
      asked = null; // and is planned anew if it comes back
      planned(null);
      panel.hide();
    }
    clearTimeout(timer);
    if (shown && may && t.trim() && t !== asked) timer = setTimeout(() => plan(), SETTLED_MS);
  }

  // plan plans the text; not quick, the daemon takes some steps to time them.
  function plan(quick = true) {
    clearTimeout(timer);
    if (lacking()) return;
    const toml = text.value;
    asked = toml;
    planned(null);
    panel.hide();
    work.again(quick ? "model and data are checked" : "model and data are checked, and some steps timed", async (signal, progress) => {
      try {
        const p = await operate("/runs/plan", { name: source, toml, quick }, progress, signal);
        if (toml !== text.value) return;
        panel.show(p);
        work.said.textContent = p.refused.length ? "It cannot be launched like this." : "It can be launched. Nobody else has seen it yet.";
        planned({ name: source, toml, plan: p });
      } catch (err) {
        if (signal.aborted && asked === toml) asked = null; // it was stopped; when the text is looked at again it is planned
        throw err;
      }
    });
  }

  // lacking says what is to be chosen before anything can be planned.
  function lacking() {
    const ways = ["model", "data"].filter((key) => !getKey(text.value, "", key)).map((key) => el("a", { href: `#/new/${key}` }, key === "model" ? "choose a model" : "choose data"));
    first.hidden = !ways.length;
    set(first, ways.length > 0 && ["Before it can be planned: ", ways.map((a, i) => [i ? ", and " : "", a]), "."]);
    return ways.length > 0;
  }

  async function begin() {
    const turn = ++turns;
    const q = new URLSearchParams({ name: getKey(text.value, "", "name") || "my-run", model: model?.id ?? "", dataset: data?.id ?? "" });
    try {
      const t = (await get(`/presets/${preset.value || "alpaca"}?${q}`)).toml;
      if (turn !== turns) return;
      source = "run.toml";
      write(keep(t));
    } catch (err) {
      if (turn === turns) await work.again("", () => { throw err; });
    }
  }

  text.addEventListener("input", () => write(text.value));
  fill.addEventListener("click", begin);
  now.addEventListener("click", () => plan());
  time.addEventListener("click", () => plan(false));
  file.addEventListener("change", async () => {
    const one = file.files[0];
    if (!one) return;
    file.value = ""; // the same one can be chosen again
    const turn = ++turns;
    try {
      const t = (await one.text()).replaceAll("\r\n", "\n");
      if (turn !== turns) return;
      source = one.name;
      write(keep(t));
    } catch {
      await work.again("", () => { throw new APIError(0, "E_USAGE", `${one.name} cannot be read`, "is it still there, and may this browser read it?"); });
    }
  });

  // keep gives a text the model and the data that were chosen.
  function keep(t) {
    if (model) t = setKey(t, "", "model", model.id, true);
    if (data) t = setKey(t, "", "data", data.id, true);
    return t;
  }

  buttons();
  return {
    node: el("div", null,
      el("div", { class: "row" }, field("Recipe", preset, "A run file to begin with: LoRA, LoRA on four bits, or all parameters of a small model."), field("… or a run file of yours", file)),
      el("p", { class: "tools" }, fill),
      el("div", { class: "three grid" }, inputs.map((i) => i.node), field("Made for", use, "A licence that forbids it is refused.")),
      el("details", null, el("summary", null, "The run file"), field("Run file", text, "What is commented out is the default.")),
      el("p", { class: "tools" }, now, time, work.stop), first, work.said, work.wrong, panel.node),
    get draft() { return { preset: wanted || preset.value, source, text: text.value }; },
    restore(d) {
      wanted = d.preset;
      source = d.source;
      text.value = d.text;
      read();
      buttons();
    },
    // enter is called when the step is shown, leave when it is not any more.
    async enter() {
      shown = true;
      if (!text.value.trim()) await begin();
      else write(keep(text.value));
    },
    leave() {
      shown = false;
      clearTimeout(timer);
    },
    with(m, d) {
      [model, data] = [m, d];
      if (text.value.trim()) write(keep(text.value));
    },
    update(presets) {
      if (preset.options.length !== presets.length) preset.replaceChildren(...presets.map((v) => el("option", { value: v }, v)));
      if (presets.includes(wanted)) [preset.value, wanted] = [wanted, ""];
    },
  };
}
