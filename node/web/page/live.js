// The one event stream of this tab: opened again when it breaks, closed while
// nobody looks. Events say that something changed; what is shown is asked for
// again, so a lost one costs nothing.

import { events, APIError } from "./api.js";

const FIRST_MS = 500, MOST_MS = 15_000;
const KEPT = 500;

// Live follows the daemon. on has state(word), event(e), resync() and
// refused(err).
export class Live {
  #on; #cursor = ""; #abort = null; #running = false;
  log = []; // the last events, newest last

  constructor(on) {
    this.#on = on;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#stop("paused");
      else this.start();
    });
  }

  // start follows the events, until the tab is hidden or the token refused.
  start() {
    if (this.#running || document.hidden) return;
    this.#running = true;
    this.#abort = new AbortController();
    this.#loop(this.#abort.signal);
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

  async #loop(signal) {
    let wait = FIRST_MS;
    while (!signal.aborted) {
      try {
        for await (const e of events(this.#cursor, signal)) {
          if (signal.aborted) return;
          if (e === null) {
            wait = FIRST_MS;
            this.#on.state("live");
            this.#on.resync(); // whatever happened meanwhile
          } else {
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
      this.#on.state("offline");
      await pause(wait * (0.75 + Math.random() / 2), signal);
      wait = Math.min(wait * 2, MOST_MS);
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
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
  });
}
