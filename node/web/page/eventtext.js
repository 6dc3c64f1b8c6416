// Events in words.

import { foreign, ident } from "./dom.js";
import * as f from "./format.js";

// eventText says what happened, as nodes and text.
export function eventText(e) {
  switch (e.type) {
    case "node.state": return [`this node: ${e.state}`, e.why && ": ", e.why && foreign(e.why)];
    case "run.state": return [`run ${e.state}`, e.why && ": ", e.why && foreign(e.why)];
    case "round.phase": return [`round ${f.count(e.n)}: ${e.phase}`];
    case "round.commit": return [`round ${f.count(e.n)}: delta of `, ident(e.peer), ` is here, ${f.count(e.tokens)} tokens, loss ${f.loss(e.loss)}`];
    case "round.done": return e.round ? [`round ${f.count(e.n)} ${e.round.certified ? "certified" : "provisional"}: ${f.plural(e.round.contributions.length, "contribution")}, ${f.count(e.round.refused.length)} refused`] : [`round ${f.count(e.n)} decided`];
    case "eval.done": return [`${e.n ? `round ${f.count(e.n)}` : "before training"}: eval loss ${f.loss(e.loss)}`];
    case "peer.joined": return [ident(e.peer), " got a seat"];
    case "peer.left": return [ident(e.peer), " lost its seat"];
    case "alert": return ["attention: ", foreign(e.text), e.peer && " (", e.peer && ident(e.peer), e.peer && ")"];
    default: return [foreign(e.type)];
  }
}
