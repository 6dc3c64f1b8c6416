// The event stream: opened again when it breaks, closed while nobody looks. Events
// say that something changed; what is shown is asked for again, so a lost one costs
// nothing.
//
// A browser opens six connections to a host, and a stream takes one. So of all tabs
// in sight one has the stream, which holds a lock meanwhile, and tells the others.
// Where there are no locks, for the page is not of this machine, each has its own.

import { access, events, APIError } from "./api.js";

const FIRST_MS = 500, MOST_MS = 2000, MOST_PUBLIC_MS = 15_000; // between tries
const KEPT = 500;
const LOCK = "moot.stream";

// Live follows the daemon. on has state(word), event(e), resync() and
// refused(err).
export class Live {
  #on; #cursor = ""; #abort = null; #running = false;
  #leading = false; #word = ""; // whether this tab has the stream, and how that is as far as it knows
  #tabs = new BroadcastChannel(LOCK);
  log = []; // the last events, newest last

  constructor(on) {
    this.#on = on;
    this.#tabs.addEventListener("message", ({ data }) => this.#hear(data));
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#stop("paused");
      else this.start();
    });
  }

  // start follows the events, until the tab is hidden or the token refused.
  start() {
    if (this.#running || document.hidden) return;
    this.#running = true;
    this.#word = "";
    this.#abort = new AbortController();
    this.#turn(this.#abort.signal);
  }

  // restart is for a new token, which may be of a new daemon.
  restart() {
    this.#stop("connecting");
    this.start();
  }

  #stop(word) {
    if (!this.#running) return;
    this.#running = false;
    this.#abort.abort();
    this.#on.state(word);
  }

  // #turn follows what the tab with the stream tells, until it is this one's turn.
  async #turn(signal) {
    if (!navigator.locks) return this.#loop(signal);
    this.#tabs.postMessage({ hello: true });
    try {
      await navigator.locks.request(LOCK, { signal }, async () => {
        [this.#leading, this.#word] = [true, ""];
        await this.#loop(signal).finally(() => { this.#leading = false; });
      });
    } catch (err) {
      if (!signal.aborted) throw err;
    }
  }

  // #tell says how the stream is, here and in the tabs that follow this one.
  #tell(word) {
    this.#word = word;
    if (this.#leading) this.#tabs.postMessage({ word });
    this.#on.state(word);
  }

  #hear({ hello, greeting, log, cursor, word, event }) {
    if (hello && this.#leading && this.#word) this.#tabs.postMessage({ greeting: true, word: this.#word, log: this.log, cursor: this.#cursor });
    if (!this.#running || this.#leading) return;
    if (greeting && this.log.length && word === this.#word) return; // it was for a tab that opened just now
    if (log && !this.log.length) [this.log, this.#cursor] = [log, cursor];
    if (event) this.#take(event);
    if (word) {
      this.#word = word;
      this.#on.state(word);
      if (word === "live") this.#on.resync();
    }
  }

  async #loop(signal) {
    let wait = FIRST_MS;
    while (!signal.aborted) {
      try {
        for await (const e of events(this.#cursor, signal)) {
          if (signal.aborted) return;
          if (e === null) {
            wait = FIRST_MS;
            this.#tell("live");
            this.#on.resync(); // whatever happened meanwhile
          } else {
            if (this.#leading) this.#tabs.postMessage({ event: e });
            this.#take(e);
          }
        }
      } catch (err) {
        if (signal.aborted) return;
        if (err instanceof APIError && err.status === 401) {
          this.#stop("refused");
          this.#on.refused(err);
          return;
        }
        if (!(err instanceof APIError)) console.error(err);
      }
      if (signal.aborted) return;
      this.#tell("offline");
      await pause(wait * (0.75 + Math.random() / 2), signal);
      wait = Math.min(wait * 2, access === "public" ? MOST_PUBLIC_MS : MOST_MS);
    }
  }

  #take(e) {
    if (e.id) this.#cursor = e.id;
    if (e.type === "gap") {
      if (!e.id) this.log = []; // what is kept comes again
      this.#on.resync();
      return;
    }
    if (e.type !== "bye" && e.type !== "ping" && e.type !== "pull.progress") {
      this.log.push(e);
      if (this.log.length > KEPT) this.log.splice(0, this.log.length - KEPT);
    }
    this.#on.event(e);
  }
}

function pause(ms, signal) {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      done();
    };
    const timer = setTimeout(end, ms);
    addEventListener("online", end); // the network of this machine is there again
    signal.addEventListener("abort", end);
  });
}
