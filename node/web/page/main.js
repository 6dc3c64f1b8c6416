// The page: who we are, which view is shown, and when it asks again.

import { access, askTabs, hasToken, learnAccess, onToken, setToken, tokenFrom, APIError } from "./api.js";
import { Live } from "./live.js";
import { el, set, foreign } from "./dom.js";
import { theme } from "./theme.js";
import { runsView } from "./runs.js";
import { beginView } from "./begin.js";
import { newView } from "./new.js";
import { runView } from "./run.js";
import { roundView } from "./round.js";
import { membersView } from "./members.js";
import { memberView } from "./member.js";
import { dataView } from "./data.js";
import { samplesView } from "./samples.js";
import { exportView } from "./export.js";
import { networkView } from "./network.js";
import { nodeView } from "./node.js";
import { generateView } from "./generate.js";
import { settingsView } from "./settings.js";
import { logsView } from "./logs.js";
import { doctorView } from "./doctor.js";
import { aboutView } from "./about.js";
import { signInView } from "./signin.js";

// A view is {title, node, refresh(signal), events(e), leave()}: refresh asks
// the daemon and shows what it says; events says whether an event concerns it;
// leave ends what it began; every is after how many milliseconds it asks again
// though nothing happened; again, which it is given, asks at once, or as soon as what
// is asked is answered, so that no late answer is taken for the last one. All but
// title and node may be missing.
const everybody = [
  [/^\/runs$/, () => runsView()],
  [/^\/runs\/([^/]+)$/, (id) => runView(id, live.log)],
  [/^\/runs\/([^/]+)\/rounds\/(\d+)$/, (id, n) => roundView(id, Number(n))],
  [/^\/runs\/([^/]+)\/data$/, (id) => dataView(id)],
  [/^\/runs\/([^/]+)\/peers$/, (id) => membersView(id)],
  [/^\/runs\/([^/]+)\/peers\/([^/]+)$/, (id, peer) => memberView(id, peer)],
];
const owner = [
  [/^\/runs\/([^/]+)\/samples$/, (id) => samplesView(id)],
  [/^\/runs\/([^/]+)\/export$/, (id) => exportView(id)],
  [/^\/(?:network|peers)$/, () => networkView()],
  [/^\/begin(?:\/([^/]+))?$/, (id) => beginView(id)],
  [/^\/new(?:\/(model|data|budget|publish))?$/, (step) => newView(step)],
  [/^\/node$/, () => nodeView()],
  [/^\/generate$/, () => generateView()],
  [/^\/settings$/, () => settingsView()],
  [/^\/logs$/, () => logsView()],
  [/^\/doctor$/, () => doctorView()],
  [/^\/about$/, () => aboutView()],
];

const BETWEEN_MS = 1000; // at most so often after events,
const URGENT_MS = 250; // and after those that somebody waits for
const urgent = new Set(["round.done", "run.state", "node.state"]);
const ANYHOW_MS = 10_000; // what has no event: heartbeats, traffic, round-trip times

const main = document.getElementById("main");
const link = document.getElementById("link");
const banner = document.getElementById("banner");
let view = null, leave = null, dirty = false, busy = false;
let last = 0, soon = 0, anyhow = 0; // when it was asked, and the timers of the next time
let due = Infinity, again = BETWEEN_MS; // how long after the last time the next one is; of what came while it was asked

const words = {
  live: "live", connecting: "connecting", offline: "no connection", paused: "paused", refused: "not signed in",
};

const live = new Live({
  state(word) {
    link.textContent = words[word];
    link.dataset.state = word;
    if (word === "live") {
      say(null);
      if (!access) enter();
    }
    if (word === "offline") say(["The daemon does not answer. What is shown may be old; it is asked again by itself."]);
  },
  event(e) {
    if (e.type === "bye") say(["The daemon is stopping. What is shown is the last that it said."]);
    if (!view?.events || view.events(e)) touch(urgent.has(e.type) ? URGENT_MS : BETWEEN_MS);
  },
  resync() { touch(); },
  refused(err) {
    say(null); // it does answer
    signIn(err);
  },
});

// say shows a line above the page, or none.
function say(parts) {
  banner.hidden = !parts;
  set(banner, parts ?? []);
}

// touch asks for the view's data again, soon.
function touch(between = BETWEEN_MS) {
  dirty = true;
  if (between < due) clearTimeout(soon);
  else if (soon) return;
  due = between;
  soon = setTimeout(refresh, Math.max(0, last + between - performance.now()));
}

async function refresh() {
  clearTimeout(soon);
  clearTimeout(anyhow);
  soon = anyhow = 0;
  const between = due;
  due = Infinity;
  if (!view?.refresh || document.hidden) return;
  if (busy) { // it is dirty, and so comes again
    again = Math.min(again, between);
    return;
  }
  const now = view, signal = leave.signal;
  busy = true;
  dirty = false;
  last = performance.now();
  try {
    await now.refresh(signal);
    if (!signal.aborted) problem(null);
  } catch (err) {
    if (!signal.aborted) failed(err);
  } finally {
    busy = false;
  }
  const then = again;
  again = BETWEEN_MS;
  if (view !== now || dirty) touch(then);
  else anyhow = setTimeout(refresh, view.every ?? ANYHOW_MS);
}

const trouble = el("div", { class: "problem", role: "alert", hidden: true });

function problem(err) {
  trouble.hidden = !err;
  if (err) set(trouble, el("p", null, foreign(err.message)), err.hint && el("p", null, foreign(err.hint)), err.code && el("p", null, el("code", null, err.code)));
}

function failed(err) {
  if (err instanceof APIError && err.status === 401) signIn(err);
  else if (err instanceof APIError && err.status !== 0) problem(err);
  else if (!(err instanceof APIError)) {
    console.error(err);
    problem({ message: "This page has a bug here; the browser's console has the details." });
  }
  // No answer at all is what the line above the page is about.
}

function show(next) {
  view?.leave?.();
  leave?.abort();
  leave = new AbortController();
  view = next;
  view.again = () => { if (view === next) touch(0); };
  problem(null);
  main.replaceChildren(trouble, view.node);
  document.title = `${view.title} – moot`;
  dirty = false;
  last = -BETWEEN_MS;
  clearTimeout(soon);
  soon = 0;
  due = Infinity;
  touch();
}

function signIn(err) {
  if (view?.signIn) return;
  show(signInView(err, signedIn));
  askTabs();
}

// signedIn goes on with a new token.
async function signedIn() {
  if (await enter()) live.restart();
}

// enter finds out what this page may do, and shows what its address names.
async function enter() {
  try {
    await learnAccess();
  } catch (err) {
    if (err instanceof APIError && err.status === 401) {
      signIn(hasToken() ? err : null);
      return false;
    }
    // Nobody answers: what is shown says so, and is asked again.
  }
  route();
  return true;
}

function route() {
  const hash = location.hash.slice(1);
  const given = tokenFrom(location.hash);
  if (given) {
    setToken(given);
    history.replaceState(null, "", "#/runs"); // not in the history, not in a bookmark
    signedIn();
    return;
  }
  if (!hasToken() && access !== "public") {
    signIn(null);
    return;
  }
  for (const [pattern, make] of access === "public" ? everybody : [...everybody, ...owner]) {
    const m = pattern.exec(hash);
    if (m) {
      show(make(...m.slice(1).map((x) => x && decodeURIComponent(x))));
      mark(hash);
      return;
    }
  }
  history.replaceState(null, "", "#/runs");
  route();
}

// mark tells which page of the navigation this is.
function mark(hash) {
  for (const a of document.querySelectorAll(".top nav a")) {
    const to = a.getAttribute("href").slice(1);
    const here = hash.startsWith(to) || (to === "/begin" && hash.startsWith("/new"));
    if (here) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
}

addEventListener("hashchange", () => {
  if (location.hash === "#main") return; // the skip link
  route();
  main.querySelector("h1")?.focus();
  scrollTo(0, 0);
});
document.querySelector(".skip").addEventListener("click", (e) => {
  e.preventDefault();
  main.focus();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) touch(); });
onToken(signedIn);
theme(document.getElementById("theme"));
if (tokenFrom(location.hash)) route();
else if (await enter()) live.start();
