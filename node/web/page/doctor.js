// What is wrong with this node, and what to do about it.

import { access, download, get, run } from "./api.js";
import { el, badge, foreign, save, set } from "./dom.js";
import * as f from "./format.js";

// What each check looks at, and the page where its step is taken.
const names = {
  version: ["Program"], daemon: ["Daemon"], work: ["Work", "#/node", "My node"], config: ["Configuration", "#/settings", "Settings"],
  data: ["Data folder"], space: ["Disk space", "#/settings", "Settings"], identity: ["Identity"], store: ["Store"], clock: ["Clock"],
  ports: ["Ports", "#/settings", "Settings"], nat: ["Reachable from outside", "#/network", "Network"], bootstrap: ["Bootstrap peers", "#/settings", "Settings"],
  peers: ["Peers", "#/network", "Network"], device: ["Device", "#/settings", "Settings"], idle: ["Whether somebody is there", "#/settings", "Settings"],
  fullscreen: ["What fills the screen", "#/settings", "Settings"], gamemode: ["Games", "#/settings", "Settings"], battery: ["Battery", "#/settings", "Settings"],
  heat: ["Temperature", "#/settings", "Settings"], disk: ["Speed of the disk"], hashing: ["Speed of the processor"],
};
const groups = [
  ["fail", "bad", "Has to be repaired", "failed"],
  ["warn", "calm", "Could be better", "could be better"],
  ["ok", "good", "As it should be", "in order"],
];

export function doctorView() {
  const summary = el("p", { class: "word" });
  const lead = el("p", { class: "note" });
  const said = el("p", { role: "status", class: "note" });
  const lists = el("div");
  const may = access === "full";
  let speed = false; // the last answer has how fast disk and processor are
  let busy = null;

  // act does one thing at a time, and says how it ended.
  async function act(text, fn) {
    if (busy) return;
    busy = new AbortController();
    for (const b of buttons) b.disabled = true;
    set(said, text);
    try {
      set(said, await fn(busy.signal));
    } catch (err) {
      if (!busy.signal.aborted) set(said, foreign(err.message), err.hint ? " – " : "", err.hint ? foreign(err.hint) : "");
    } finally {
      busy = null;
      buttons.forEach((b, i) => { b.disabled = i > 0 && !may; });
    }
  }
  const button = (text, attrs, fn) => el("button", { type: "button", ...attrs, on: { click: fn } }, text);
  const buttons = [
    button("Look again", { class: "main" }, () => act("looks …", async (signal) => {
      speed = false;
      show(await get("/doctor", signal));
      return `looked at ${f.clock(Date.now())}`;
    })),
    button("Measure disk and processor", { disabled: !may }, () => act("measures; it writes 32 MiB …", async (signal) => {
      const c = await run("/doctor", { speed: true }, null, signal);
      speed = true;
      show(c);
      return `measured at ${f.clock(Date.now())}`;
    })),
    button("Download a report", { disabled: !may }, () => act("makes the report …", async (signal) => {
      const { name, blob } = await download("/doctor/report", signal, "POST");
      save(name, blob);
      return "Read it before you send it to somebody who helps.";
    })),
  ];

  function show(c) {
    const of = (level) => c.checks.filter((x) => x.level === level);
    const worst = groups.find(([level]) => of(level).length) ?? groups[2];
    summary.className = `word ${worst[1]}`;
    set(summary, worst[0] === "ok" ? "healthy" : worst[0] === "fail" ? "needs you" : "works");
    set(lead, groups.filter(([level]) => of(level).length).map(([level, , , text]) => `${f.plural(of(level).length, "check")} ${text}`).join(", "), ".");
    set(lists, groups.filter(([level]) => of(level).length).map(([level, kind, title]) => el("section", { class: "card" }, el("h2", null, title),
      of(level).map((x) => {
        const [name, href, page] = names[x.name] ?? [x.name];
        return el("div", { class: "setting" },
          el("div", null, el("h3", null, foreign(name)), badge(level === "ok" ? "ok" : level === "warn" ? "could be better" : "failed", kind)),
          el("div", null, el("p", null, foreign(x.text)), x.fix && el("p", { class: "step" }, el("strong", null, "What to do: "), foreign(x.fix), href && [" ", el("a", { href }, page)])));
      }))));
  }

  return {
    title: "Doctor", every: 300_000,
    node: el("div", null, el("h1", { tabindex: -1 }, "Doctor"),
      el("div", { class: "card state" }, summary, lead, el("p", { class: "tools" }, buttons), said,
        el("p", { class: "note" }, "It looks and changes nothing. “mootd doctor” says the same, also when no daemon runs. The report has these checks, settings, status, runs, peers and the log; keys, tokens, names, folders of the user, addresses and peer IDs are taken out.")),
      lists),
    events: () => false,
    leave() { busy?.abort(); },
    async refresh(signal) {
      if (speed || busy) return;
      const c = await get("/doctor", signal);
      if (!speed && !busy) show(c);
    },
  };
}
