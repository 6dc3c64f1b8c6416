// To take part in a run: nothing is pulled before this page has shown what that
// takes, and somebody agreed.

import { access, run as operate } from "./api.js";
import { el, facts, foreign, ident, set } from "./dom.js";
import { amount, field, job, verdict } from "./job.js";
import { table } from "./table.js";
import * as f from "./format.js";

// fitTable shows what a run needs of this machine.
function fitTable() {
  return table({
    caption: "What it takes", file: "fit", empty: "Nothing was checked yet.", key: (i) => i.name,
    columns: [
      { title: "What", value: (i) => i.name },
      { title: "Verdict", value: (i) => i.verdict, cell: (i) => verdict(i.verdict) },
      { title: "Needs", num: true, value: (i) => i.need_bytes, cell: (i) => amount(i.need_bytes, i.have_bytes) },
      { title: "In words", value: (i) => i.text, cell: (i) => foreign(i.text) },
      { title: "Way out", value: (i) => i.way ?? "", cell: (i) => foreign(i.way ?? "") },
    ],
  });
}

// fromLine reads what others paste: "moot join ID --peer ADDRESS --invite CODE".
function fromLine(text) {
  const words = text.replaceAll("\\\n", " ").split(/\s+/).filter(Boolean);
  const out = { id: "", peers: [], invite: "" };
  for (let i = 0; i < words.length; i++) {
    if (words[i] === "--peer") out.peers.push(...(words[++i] ?? "").split(",").filter(Boolean));
    else if (words[i] === "--invite") out.invite = words[++i] ?? "";
    else if (/^baf[a-z2-7]+$/.test(words[i])) out.id ||= words[i];
  }
  return out;
}

function joinCard(given) {
  const id = el("input", { type: "text", spellcheck: "false", autocomplete: "off", value: given ?? "", placeholder: "bafkrei…" });
  const peers = el("textarea", { rows: 2, spellcheck: "false", placeholder: "/ip4/203.0.113.7/udp/4001/quic-v1/p2p/12D3KooW…" });
  const invite = el("input", { type: "text", spellcheck: "false", autocomplete: "off" });
  const consent = el("input", { type: "checkbox", disabled: true });
  const agree = el("span");
  const check = el("button", { type: "submit", class: "main" }, "Check whether it fits");
  const join = el("button", { type: "button", class: "main", disabled: true }, "Pull and join");
  const about = el("div"), result = el("p", { class: "lead", role: "status" });
  const items = fitTable();
  const shown = el("div", { hidden: true }, about, items.node, el("label", { class: "consent" }, consent, " ", agree), el("p", { class: "tools" }, join));
  let fit = null;
  const work = job(buttons);
  const may = access === "full";

  function buttons() {
    check.disabled = work.busy || !may;
    const refused = !fit || fit.items.some((i) => i.code);
    consent.disabled = work.busy || refused;
    join.disabled = work.busy || refused || !consent.checked;
  }
  const forget = () => { fit = null; consent.checked = false; shown.hidden = true; buttons(); };
  for (const x of [id, peers, invite]) x.addEventListener("input", forget);
  id.addEventListener("change", () => {
    const line = fromLine(id.value);
    if (!line.id) return;
    id.value = line.id;
    if (line.peers.length) peers.value = line.peers.join("\n");
    if (line.invite) invite.value = line.invite;
  });
  consent.addEventListener("change", buttons);
  const addresses = () => peers.value.split(/[\s,]+/).filter(Boolean);

  const form = el("form", { class: "card" }, el("h2", null, "Join a run"),
    field("Run", id, "Its ID, or the whole line that its launcher passed on."),
    field("Peers", peers, "Addresses of nodes that are in it, one a line. None: they are looked for."),
    field("Invitation", invite, "Only for a run that asks for one."),
    el("p", { class: "tools" }, check, work.stop), work.said, work.wrong, shown, result);
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    forget();
    result.replaceChildren();
    work.do("the run is looked for", async (signal, progress) => {
      const asked = id.value.trim(), at = peers.value;
      const got = await operate(`/runs/${encodeURIComponent(asked)}/check`, { peers: addresses() }, progress, signal);
      if (id.value.trim() !== asked || peers.value !== at) { // something else is meant now
        work.said.textContent = "";
        return;
      }
      fit = got;
      const refused = fit.items.some((i) => i.code);
      work.said.textContent = refused ? "This node does not join it." : "Nothing was pulled yet.";
      set(about, el("p", null, el("strong", null, foreign(fit.name || "(no name)")), " ", verdict(fit.verdict)), facts([
        ["Launched by", ident(fit.launcher)],
        ["Model", el("span", null, ident(fit.model), ` ${f.bytes(fit.model_bytes)}, licence `, foreign(fit.model_licence || "not stated"))],
        ["Data", el("span", null, ident(fit.dataset), ` ${f.bytes(fit.dataset_bytes)}, licence `, foreign(fit.data_licence || "not stated"))],
        ["To pull", f.bytes(fit.missing_bytes)], ["Made for", fit.use === "unstated" ? "use not stated" : `${fit.use} use`], ["Computes on", foreign(fit.device)],
      ]));
      items.update(fit.items);
      agree.textContent = `Pull ${f.bytes(fit.missing_bytes)}, let this machine train for this run, and share what it pulled with the run's other peers`;
      shown.hidden = false;
    });
  });
  join.addEventListener("click", () => work.do("joining", async (signal, progress) => {
    const r = await operate(`/runs/${encodeURIComponent(fit.run)}/join`, { peers: addresses(), ...(invite.value.trim() ? { invite: invite.value.trim() } : {}) }, progress, signal);
    forget();
    work.said.textContent = "";
    set(result, "This node is in ", el("a", { href: `#/runs/${encodeURIComponent(r.id)}` }, foreign(r.name || r.id)), ". It can be left again on that page.");
  }));
  buttons();
  return { node: form, end: work.end };
}

export function beginView(id) {
  const join = joinCard(id);
  return {
    title: "Join or launch",
    node: el("div", null, el("h1", { tabindex: -1 }, "Join or launch a run"),
      access === "full" ? el("p", { class: "lead" }, "Nothing is pulled or published before it was checked, and you agreed.") : el("p", { class: "lead" }, "This page may look, and not change anything: open it with the daemon's full token."),
      el("div", { class: "grid" }, join.node, el("section", { class: "card" }, el("h2", null, "Launch a run"),
        el("p", null, "A model that is to learn, rows to learn from, how long and by how many: in four steps, of which only the last one shows anything to others."),
        el("p", null, el("a", { class: "action", href: "#/new/model" }, "Launch a run of your own"))))),
    events: () => false,
    leave() { join.end(); },
  };
}
