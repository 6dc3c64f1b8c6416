// The node's configuration.

import { access, change, get } from "./api.js";
import { el, foreign, set, uid } from "./dom.js";

// What each key is for; node/README.md says more.
const about = {
  data_dir: "folder of everything the daemon keeps",
  listen: "addresses for peers, as multiaddrs",
  api: "host:port of this page and the API",
  bootstrap: "peers that are dialled at every start",
  mdns: "find nodes on this machine and in this network",
  cache_max_mb: "how much of the disk may be used, in MB; 0: all there is",
  min_free_mb: "how much of the disk stays free, in MB",
  device: "what trains: cpu, cuda:0 …, or auto",
  threads: "processor threads for training",
  precision: "of products with 16- or 4-bit weights on the processor: auto, bf16 or f32",
  log_level: "debug, info, warn or error, with others for components: info,p2p=debug",
  log_format: "text or json",
  log_file: "where the log goes instead of standard error",
  "work.schedule": "windows of local time in which it may compute; “My node” has a grid for it",
  "work.duty_percent": "of the time that it computes; after each step it rests",
  "work.on_battery": "work when not plugged in",
  "work.max_temp_c": "temperature in °C above which it stops; 0: any",
  "work.exclusive_apps": "programs that it makes way for",
  "work.resume_after_seconds": "how long it waits when what it made way for is gone",
  "network.upload_mbit": "most that is sent over the internet, in Mbit/s; 0: no limit",
  "network.download_mbit": "most that is received, in Mbit/s; 0: no limit",
  "network.monthly_gb": "most of both in a calendar month, in GB; 0: no limit",
  "network.public": "this machine can be reached from everywhere",
  "network.relay": "carry small requests of peers that cannot reach each other",
  "network.ipfs_bootstrap": "nodes of the public IPFS network",
};

const text = (values) => values.join("\n");
const shown = (values) => (values.length ? values.join(", ") : "none");

export function settingsView() {
  const rows = new Map(); // by key
  let saves = 0; // what was asked before the last of them does not know of it
  const box = el("div");
  const top = el("p", { class: "lead" });
  const wrong = el("p", { class: "problem", role: "alert", hidden: true });

  function make(s) {
    const id = uid("setting");
    const yes = !s.list && (s.default[0] === "true" || s.default[0] === "false");
    const input = s.list ? el("textarea", { id, rows: 2, spellcheck: "false" }) : yes
      ? el("select", { id }, ["true", "false"].map((v) => el("option", { value: v }, v === "true" ? "yes" : "no")))
      : el("input", { id, type: "text", spellcheck: "false", autocomplete: "off" });
    const save = el("button", { type: "button", class: "small", "aria-label": `Save ${s.key}` }, "Save");
    const reset = el("button", { type: "button", class: "small", "aria-label": `Set ${s.key} to its default` }, "Default");
    const note = el("span", { class: "note" });
    const problem = el("p", { class: "problem", role: "alert", hidden: true });
    const row = { input, base: null, s };
    const send = async (values) => {
      problem.hidden = true;
      try {
        saves++;
        const answer = await change("PATCH", "/config", { set: { [s.key]: values } });
        saves++;
        row.base = null;
        show(answer);
      } catch (err) {
        problem.hidden = false;
        set(problem, foreign(err.message), err.hint ? " – " : "", err.hint ? foreign(err.hint) : "");
      }
    };
    save.addEventListener("click", () => send(s.list ? input.value.split("\n").map((l) => l.trim()).filter(Boolean) : [input.value.trim()]));
    reset.addEventListener("click", () => send(row.s.default));
    input.addEventListener("input", () => row.draw());
    row.node = el("div", { class: "setting" }, el("div", null, el("label", { for: id }, el("code", null, s.key)), el("span", { class: "note" }, about[s.key] ?? "")),
      el("div", null, el("div", { class: "tools" }, input, save, reset), note, problem));
    row.update = (next) => {
      row.s = next;
      const value = text(next.next ?? next.values);
      if (row.base === null || input.value === row.base) input.value = value; // else somebody is at it
      row.base = value;
      set(note, next.origin === "default" ? "the default" : `from the ${next.origin}${next.where ? ` ${next.where}` : ""}; default ${shown(next.default)}`,
        next.next ? `; in effect until the next start: ${shown(next.values)}` : "", next.live ? "" : "; takes effect at the next start",
        next.origin === "flag" || next.origin === "environment" ? "; stronger than the file, so it cannot be changed here" : "");
      row.draw();
    };
    row.draw = () => {
      const may = access === "full" && row.file && row.s.origin !== "flag" && row.s.origin !== "environment";
      input.disabled = !may;
      save.disabled = !may || input.value === row.base;
      reset.disabled = !may || text(row.s.default) === row.base;
    };
    return row;
  }

  function show(answer) {
    set(top, answer.file ? ["The file is ", foreign(answer.file, { class: "foreign mono" }), ". What is saved here is written to it; comments stay."] : "This daemon follows no file, so nothing can be changed here.");
    wrong.hidden = !answer.error;
    if (answer.error) set(wrong, "The file is not used as it is now: ", foreign(answer.error));
    const tables = new Map();
    for (const s of answer.settings) {
      if (!rows.has(s.key)) rows.set(s.key, make(s));
      const row = rows.get(s.key);
      row.file = Boolean(answer.file);
      row.update(s);
      const name = s.key.includes(".") ? s.key.split(".")[0] : "general";
      tables.set(name, [...(tables.get(name) ?? []), row.node]);
    }
    if (!box.childElementCount) {
      box.append(...[...tables].map(([name, nodes]) => el("section", { class: "card" }, el("h2", null, { general: "General", work: "Work: when and how hard", network: "Network" }[name] ?? name), nodes)));
    }
  }

  return {
    title: "Settings",
    node: el("div", null, el("h1", { tabindex: -1 }, "Settings"), top, wrong, box),
    events: (e) => e.type === "node.state",
    async refresh(signal) {
      const before = saves, answer = await get("/config", signal);
      if (before === saves) show(answer);
    },
  };
}
