// Files of the browser's machine, sent in parts: after a break, and when the same
// file is chosen again after the page was loaded anew, it goes on where the daemon
// has it to. At the end both compare a digest of all.

import { get, run as operate, sendPart, APIError } from "./api.js";

const PIECE = 4 << 20; // as api.UploadPiece: of what a digest is made, and what is sent at once
const FIRST_MS = 500, MOST_MS = 10_000; // between tries

const hex = (buffer) => [...new Uint8Array(buffer)].map((b) => b.toString(16).padStart(2, "0")).join("");
const sha256 = (bytes) => crypto.subtle.digest("SHA-256", bytes);

// bytesOf reads a part of a file.
async function bytesOf(file, from) {
  try {
    return await file.slice(from, from + PIECE).arrayBuffer();
  } catch {
    throw new APIError(0, "E_USAGE", `${file.name} cannot be read any more`, "was it changed or moved? choose it again");
  }
}

const IDS = 8; // that are tried of a file

// uploadID is the same for the same file: by its name, its size, when it was changed
// and how it begins. Where two files share it, the digest tells, and other is what
// the next ID is made with.
async function uploadID(file, other) {
  if (!crypto.subtle) throw new APIError(0, "E_USAGE", "files cannot be sent from a page that is neither of this machine nor served with TLS", "give the path of the file on the daemon's machine");
  const begin = await sha256(await bytesOf(file, 0));
  return hex(await sha256(new TextEncoder().encode(JSON.stringify([file.name, file.size, file.lastModified, hex(begin), ...(other ? [other] : [])])))).slice(0, 16);
}

const begun = new WeakMap(); // of File to the ID that it is sent under

// begunID is the ID under which this page sends a file, or began to.
export const begunID = (file) => begun.get(file);

// passing says whether a failure goes by itself: nobody answers, the daemon has
// started again and wants another token, or a part that was cut off is still waited
// for.
const passing = (err) => ["E_DAEMON", "E_RETRY"].includes(err.code) || [401, 408, 429].includes(err.status);

// upload sends a file, and returns what the daemon says of it. Where another file is
// under its ID, it takes the next one, so that both are there: one that follows from
// the file, so that it goes on under it after a reload, or, where others send under
// the same one at the same time, one that nobody has.
export async function upload(file, progress, signal) {
  const tell = (phase, done) => progress?.({ phase: `${phase} of ${file.name}`, done, total: file.size, unit: "bytes" });
  let id, ids = 0;
  const name = async (other) => {
    id = await uploadID(file, other);
    ids++;
  };
  await name();
  const digests = []; // of the pieces
  let wait = FIRST_MS, anew = false, ending = false;
  for (;;) {
    signal?.throwIfAborted();
    try {
      ending = false;
      const { uploads, parts } = await get("/uploads", signal);
      let have = uploads.some((u) => u.id === id) ? file.size : parts.find((p) => p.id === id)?.have ?? 0;
      while (have < file.size) {
        const bytes = await bytesOf(file, have);
        const q = new URLSearchParams({ name: file.name, bytes: file.size, offset: have });
        tell("upload", have);
        const from = have;
        begun.set(file, id); // not before: what is there may be of another file
        have = (await sendPart(`/uploads/${id}?${q}`, bytes, (n) => tell("upload", from + Math.min(n, bytes.byteLength)), signal)).have;
        wait = FIRST_MS;
      }
      while (digests.length * PIECE < file.size) {
        tell("check", digests.length * PIECE);
        digests.push(new Uint8Array(await sha256(await bytesOf(file, digests.length * PIECE))));
        signal?.throwIfAborted();
      }
      const all = new Uint8Array(await new Blob(digests).arrayBuffer());
      const digest = hex(await sha256(all));
      ending = true;
      const there = await operate(`/uploads/${id}/finish`, { digest }, progress, signal);
      begun.set(file, id);
      return there;
    } catch (err) {
      if (signal?.aborted) throw err;
      if (err.code === "E_DATA" && !anew) { // what was here already was of another file, or is broken
        anew = true;
        continue;
      }
      // What is here is of another file, or another page sends one. A part is refused
      // where there is no room.
      if ((err.code === "E_DATA" || (err.code === "E_CONFLICT" && ending)) && ids < IDS) {
        begun.delete(file);
        await name(err.code === "E_DATA" ? crypto.randomUUID() : ids);
        anew = false;
        progress?.({ text: `another file that begins like ${file.name} is here already; this one is sent beside it` });
        continue;
      }
      if (err.code !== "E_NOTFOUND" && !passing(err)) throw err;
      progress?.({ text: `${file.name} waits, and goes on by itself: ${err.message}` });
      await pause(wait, signal);
      wait = Math.min(2 * wait, MOST_MS);
    }
  }
}

function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
  });
}
