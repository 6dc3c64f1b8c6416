// The keys of a run file's text: read and set one by one, all else stays as it
// was written.

const quote = (s) => JSON.stringify(String(s));
const escape = (s) => s.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

// entry matches a key's line, in effect or commented out: 1 indent, 2 "# " or
// nothing, 3 key and =, 4 value, 5 what follows.
const entry = (key) => new RegExp(`^(\\s*)(#\\s*)?(${escape(key)}\\s*=\\s*)("(?:[^"\\\\]|\\\\.)*"|'[^']*'|[^#]*?)(\\s*(?:#.*)?)$`);

// find returns the number of a key's line, or of the line behind which it
// belongs, and with which prefix: before the first table, table.key is a key of
// it, too. table is "" for keys that are in none.
function find(rows, table, key) {
  const is = entry(key), dotted = entry(`${table}.${key}`), sibling = new RegExp(`^\\s*${escape(table)}\\.[^=#]*=`);
  let here = table === "", top = !here, behind = here ? -1 : null, prefix = "", commented = null;
  for (let i = 0; i < rows.length; i++) {
    const head = /^\s*\[([^\]]*)\]/.exec(rows[i]);
    if (head) {
      if (here) break;
      top = false;
      here = head[1].trim() === table;
      if (here) [behind, prefix, commented] = [i, "", null];
      continue;
    }
    if (top && sibling.test(rows[i])) [behind, prefix] = [i, `${table}.`];
    if (here && /^\s*[\w"'-]+\s*=/.test(rows[i])) behind = i;
    const m = here ? is.exec(rows[i]) : top && dotted.exec(rows[i]);
    if (m && !m[2]) return { at: i, m };
    if (m) commented ??= { at: i, m };
  }
  return commented ?? { behind, prefix };
}

// getKey returns a key's value as text, without quotes; "" when it is not there
// or commented out.
export function getKey(text, table, key) {
  const { m } = find(text.split("\n"), table, key);
  if (!m || m[2]) return "";
  if (m[4].startsWith('"')) {
    try {
      return JSON.parse(m[4]);
    } catch { /* an escape that only TOML has */ }
  }
  return m[4].replace(/^(["'])(.*)\1$/, "$2");
}

// setKey gives a key a value, or comments it out when the value is "".
export function setKey(text, table, key, value, asText) {
  const rows = text.split("\n");
  const { at, behind, prefix, m } = find(rows, table, key);
  const v = asText ? quote(value) : value;
  if (m && value !== "") rows[at] = m[1] + m[3] + v + m[5];
  else if (m && !m[2]) rows[at] = `${m[1]}# ${m[3]}${m[4]}${m[5]}`;
  else if (m || value === "") return text;
  else if (behind === null) rows.push(`[${table}]`, `${key} = ${v}`);
  else rows.splice(behind + 1, 0, `${prefix}${key} = ${v}`);
  return rows.join("\n");
}
