// Comma-separated values, RFC 4180.

// csv writes rows, the first of which has the names of the columns. Text that
// a spreadsheet would compute gets an apostrophe: it may come from a peer.
export function csv(rows) {
  return rows.map((row) => row.map(field).join(",") + "\r\n").join("");
}

function field(v) {
  if (v === null || v === undefined) return "";
  if (typeof v === "number") return String(v);
  let s = String(v);
  if (/^[=+\-@\t\r]/.test(s)) s = `'${s}`;
  return /[",\r\n]/.test(s) ? `"${s.replaceAll('"', '""')}"` : s;
}

export const csvBlob = (rows) => new Blob([csv(rows)], { type: "text/csv;charset=utf-8" });
