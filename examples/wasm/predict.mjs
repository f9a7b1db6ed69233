// Predicts a scan with the module of this folder, in Node:
//
//   node predict.mjs MODULE.wasm MODEL_FOLDER SCAN.nii.gz LABELS.nii.gz [EXPECTED.nii.gz]
//
// With EXPECTED, the voxels have to be those of that file.
import { webcrypto } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

const [module_file, model, scan, labels, expected] = process.argv.slice(2);
const module = new WebAssembly.Module(readFileSync(module_file));

// Crates below Burn import what web pages have, through wasm-bindgen. A prediction needs random bytes,
// for the ids of Burn's parameters, and nothing else: whatever else is called ends it.
const random = (address, length) =>
  webcrypto.getRandomValues(new Uint8Array(wasm.memory.buffer, address >>> 0, length >>> 0));
const imports = {};
for (const { module: from, name } of WebAssembly.Module.imports(module)) {
  const refuse = () => {
    throw new Error(`expected a prediction that needs random bytes only, found a call of ${name}`);
  };
  imports[from] ??= {};
  imports[from][name] = name.startsWith("__wbg_getRandomValues_") ? random : refuse;
}
const wasm = new WebAssembly.Instance(module, imports).exports;

const put = (...parts) => {
  const bytes = Buffer.concat(parts);
  // The address is that of a buffer whose memory may be new: the view is made after it.
  const address = wasm.buffer(bytes.length) >>> 0;
  new Uint8Array(wasm.memory.buffer, address, bytes.length).set(bytes);
};
const output = () =>
  Buffer.from(wasm.memory.buffer, wasm.output() >>> 0, wasm.output_length() >>> 0);

for (const name of ["network.json", "plans.json", "labels.json", "weights.safetensors"]) {
  put(Buffer.from(name), readFileSync(join(model, name)));
  wasm.add_file(Buffer.byteLength(name));
}
put(readFileSync(scan));
const begin = performance.now();
let status;
try {
  status = wasm.predict();
} catch (error) {
  console.error(`${error.message}: ${output()}`);
  process.exit(1);
}
if (status !== 0) {
  console.error(`${output()}`);
  process.exit(1);
}
const found = Buffer.from(output());
writeFileSync(labels, found);
const megabytes = (wasm.memory.buffer.byteLength / 2 ** 20).toFixed(0);
console.log(`${((performance.now() - begin) / 1000).toFixed(1)} s, ${megabytes} MiB of memory`);

if (expected) {
  // Past the header: the voxels, one byte each.
  const voxels = (file) => file.subarray(file.readFloatLE(108));
  const [here, there] = [found, readFileSync(expected)].map((file) => voxels(gunzipSync(file)));
  const differing = here.reduce((sum, value, at) => sum + (value !== there[at]), 0);
  const labelled = here.reduce((sum, value) => sum + (value !== 0), 0);
  console.log(`${here.length} voxels, ${labelled} labelled, ${differing} differ from ${expected}`);
  process.exit(here.length === there.length && differing === 0 && labelled > 0 ? 0 : 1);
}
