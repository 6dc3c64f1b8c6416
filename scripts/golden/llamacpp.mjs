// Writes the logits that llama.cpp computes, a JSON list for each position: of the base model if ADAPTER is "-", else with
// the adapter. In a folder with node-llama-cpp (npm install node-llama-cpp), which brings a built llama.cpp:
//
//     node PATH/TO/scripts/golden/llamacpp.mjs BASE.gguf ADAPTER.gguf 1,2,3 OUT.json
//
// TestLlamaCpp in node/internal/train runs it: MOOT_LLAMACPP=FOLDER go test ./node/internal/train -run LlamaCpp
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { createRequire } from 'node:module';

const { getLlama } = await import(pathToFileURL(createRequire(process.cwd() + '/').resolve('node-llama-cpp')).href);
const [base, adapter, ids, out] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: 'error' });
const model = await llama.loadModel({ modelPath: base, useMmap: false });
const context = await model.createContext({ contextSize: 256, batchSize: 256, lora: adapter === '-' ? undefined : adapter, threads: 1, flashAttention: false });
const tokens = ids.split(',').map(Number);
const result = await context.getSequence().controlledEvaluate(tokens.map((t) => [t, { generateNext: { logits: true, token: false } }]));
writeFileSync(out, JSON.stringify(result.map((r) => [...r.next.logits].sort((a, b) => a[0] - b[0]).map((e) => e[1]))));
process.exit(0);
