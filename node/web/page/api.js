// The daemon's API: who we are, one question, one operation, the events.
// The token is in a header, never in an address, and in this tab's storage.

const KEY = "moot.token";
const QUIET_MS = 45_000; // the daemon shows every 15 s that a stream lives

// APIError is an answer that says no, or no answer (status 0).
export class APIError extends Error {
  constructor(status, code, message, hint) {
    super(message);
    Object.assign(this, { status, code, hint });
  }
}

let token = sessionStorage.getItem(KEY) ?? "";
const tabs = new BroadcastChannel("moot");
let adopt = () => {};

// validToken says whether s can be sent in a header.
const validToken = (s) => typeof s === "string" && /^[\x21-\x7e]{1,200}$/.test(s);

// setToken keeps a token and tells the other tabs of this daemon.
export function setToken(s, tell = true) {
  if (!validToken(s)) return false;
  const changed = s !== token;
  token = s;
  sessionStorage.setItem(KEY, s);
  if (tell) tabs.postMessage({ token: s });
  return changed;
}

export const hasToken = () => token !== "";

// access is what this page may do: "full", "read" (ask, and change nothing),
// "public" (see the runs), or "" while nobody said.
export let access = "";

// learnAccess asks for it.
export async function learnAccess(signal) {
  access = (await get("/access", signal)).access;
  document.documentElement.dataset.access = access;
  return access;
}

// onToken is called when another tab has a token that is new here.
export function onToken(fn) { adopt = fn; }

tabs.addEventListener("message", ({ data }) => {
  if (data?.want && token) tabs.postMessage({ token });
  if (data?.token && (!token || refused) && setToken(data.token, false)) adopt();
});

// A token that was refused is replaced by that of another tab; one that works
// is not.
let refused = false;

// askTabs asks the other tabs of this daemon for its token.
export function askTabs() { tabs.postMessage({ want: true }); }

// tokenFrom finds the token in a fragment, an address or in itself.
export function tokenFrom(text) {
  const s = text.trim();
  const m = /#(?:.*&)?token=([^&\s]+)/.exec(s);
  if (m) return decodeURIComponent(m[1]);
  return validToken(s) && !s.includes("/") ? s : "";
}

async function ask(path, { method = "GET", body, headers, signal, timeout = 20_000 } = {}) {
  const signals = [signal, timeout && AbortSignal.timeout(timeout)].filter(Boolean);
  let resp;
  try {
    resp = await fetch(`/api/v1${path}`, {
      method, body, cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
      headers: { ...(token ? { Authorization: `Bearer ${token}` } : {}), ...headers },
      signal: AbortSignal.any(signals),
    });
  } catch (err) {
    if (signal?.aborted) throw err;
    throw new APIError(0, "E_DAEMON", "the daemon does not answer", "is mootd running?");
  }
  if (!resp.ok) throw await failure(resp);
  refused = false;
  return resp;
}

async function failure(resp) {
  let e = {};
  try {
    e = (await resp.json()).error ?? {};
  } catch { /* not from our daemon */ }
  refused = resp.status === 401;
  return new APIError(resp.status, e.code ?? "E_DAEMON", e.message ?? `the daemon answered ${resp.status}`, e.hint);
}

// get asks one question.
export async function get(path, signal) {
  const resp = await ask(path, { signal });
  return resp.json();
}

// change asks for something to be done, which takes no time.
export async function change(method, path, request, signal) {
  const resp = await ask(path, { method, body: request && JSON.stringify(request), headers: { "Content-Type": "application/json" }, signal });
  return resp.json();
}

// download fetches a file, which may take as long as it takes.
export async function download(path, signal, method = "GET") {
  const body = method === "POST" ? { body: "{}", headers: { "Content-Type": "application/json" } } : {};
  const resp = await ask(path, { method, signal, timeout: 0, ...body });
  const name = /filename="([\w.-]+)"/.exec(resp.headers.get("Content-Disposition") ?? "")?.[1] ?? "download";
  return { name, blob: await resp.blob() };
}

// sendPart sends a part of a file, and tells how much of it went: fetch cannot.
export function sendPart(path, bytes, progress, signal) {
  return new Promise((done, fail) => {
    const req = new XMLHttpRequest();
    const stop = () => req.abort();
    req.open("PUT", `/api/v1${path}`);
    req.responseType = "json";
    req.timeout = 0; // of a slow line; the daemon ends what does not come on
    req.setRequestHeader("Authorization", `Bearer ${token}`);
    req.setRequestHeader("Content-Type", "application/octet-stream");
    req.upload.addEventListener("progress", (e) => progress(e.loaded));
    req.addEventListener("load", () => {
      const e = req.response?.error ?? {};
      if (req.status === 200 && req.response) return done(req.response);
      fail(new APIError(req.status, e.code ?? "E_DAEMON", e.message ?? `the daemon answered ${req.status}`, e.hint));
    });
    req.addEventListener("error", () => fail(new APIError(0, "E_DAEMON", "the daemon does not answer", "is mootd running?")));
    req.addEventListener("abort", () => fail(signal?.reason ?? new DOMException("stopped", "AbortError")));
    req.addEventListener("loadend", () => signal?.removeEventListener("abort", stop));
    if (signal?.aborted) return fail(signal.reason);
    signal?.addEventListener("abort", stop);
    req.send(bytes);
  });
}

// run starts an operation, tells its progress, and returns its result.
export async function run(path, request, progress, signal) {
  const resp = await ask(path, {
    method: "POST", body: JSON.stringify(request), headers: { "Content-Type": "application/json" }, signal, timeout: 0,
  });
  for await (const text of lines(resp, signal)) {
    if (!text.trim()) continue;
    const line = JSON.parse(text);
    if (line.type === "progress") progress?.(line);
    if (line.type === "result") return line.result;
    if (line.type === "error") throw new APIError(200, line.error.code, line.error.message, line.error.hint);
  }
  throw new APIError(0, "E_DAEMON", "the daemon's answer was cut", "look at its log and try again");
}

// events yields what happens after a cursor ("" is all that is kept), and null
// once when the stream is open.
export async function* events(since, signal) {
  const headers = { Accept: "text/event-stream" };
  if (since) headers["Last-Event-ID"] = since;
  const resp = await ask("/events", { headers, signal, timeout: 0 });
  yield null;
  let data = [];
  for await (const line of lines(resp, signal)) {
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    if (line === "" && data.length) {
      yield JSON.parse(data.join("\n"));
      data = [];
    }
  }
}

// lines yields the lines of an answer as they come. One that is silent for
// long is dead.
async function* lines(resp, signal) {
  const reader = resp.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await within(reader.read(), QUIET_MS);
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const p of parts) yield p.endsWith("\r") ? p.slice(0, -1) : p;
    }
    if (rest) yield rest;
  } catch (err) {
    if (signal?.aborted || err instanceof APIError) throw err;
    throw new APIError(0, "E_DAEMON", "the connection to the daemon broke", "is mootd running?");
  } finally {
    reader.cancel().catch(() => {}); // it is over either way
  }
}

function within(promise, ms) {
  let timer;
  const late = new Promise((_, no) => {
    timer = setTimeout(() => no(new APIError(0, "E_DAEMON", "the daemon is silent", "is it stopped or very busy?")), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
