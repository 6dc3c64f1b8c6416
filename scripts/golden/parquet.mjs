// Writes the Parquet files in shard/testdata/parquet with DuckDB, whose writer is not the one that the
// tests use otherwise. In a folder of its own:
//
//     npm install @duckdb/node-api
//     node PATH/TO/scripts/golden/parquet.mjs PATH/TO/shard/testdata/parquet
//
// The files in the repository were written by DuckDB 1.5.6. TestParquetOfDuckDB knows their rows.
import { createRequire } from 'node:module';

const { DuckDBInstance } = createRequire(process.cwd() + '/')('@duckdb/node-api');
const out = process.argv[2];
const db = await (await DuckDBInstance.create(':memory:')).connect();

// Texts that repeat (dictionary) and that do not.
await db.run(`create table alpaca as select 'Question ' || (i % 7) as instruction,
  case when i % 4 = 0 then null else 'input ' || (i % 5) end as input,
  'Answer ' || i || ' – ünïcode ✓' as output, i as id, i / 7.0 as score, i % 2 = 0 as flag from range(300) t(i)`);
await db.run(`create table messages as select list_value({'role': 'system', 'content': 'Be brief ' || (i % 3)},
  {'role': 'user', 'content': 'Q ' || i}, {'role': 'assistant', 'content': 'A ' || (i * i)}) as messages, i as id from range(300) t(i)`);
await db.run(`create table conversations as select list_value({'from': 'human', 'value': 'Q ' || i},
  {'from': 'gpt', 'value': 'A ' || (i * i)}) as conversations from range(300) t(i)`);
await db.run(`create table text as select repeat(md5(i::varchar), 2) as text from range(300) t(i)`);

for (const [table, codec, version] of [
  ['alpaca', 'uncompressed', 'V1'], ['alpaca', 'snappy', 'V1'], ['alpaca', 'brotli', 'V2'], ['messages', 'zstd', 'V2'],
  ['messages', 'lz4_raw', 'V1'], ['conversations', 'gzip', 'V1'], ['conversations', 'lz4_raw', 'V2'], ['text', 'zstd', 'V2'],
]) {
  await db.run(`copy ${table} to '${out}/${table}-${codec}-${version.toLowerCase()}.parquet'
    (format parquet, compression ${codec}, parquet_version ${version}, row_group_size 2048)`);
}
