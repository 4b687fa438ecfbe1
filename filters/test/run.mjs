// Proves modules before there is a host: `node run.mjs cases DIR|FILE.wasm ...`, `node run.mjs conformance DIR`, `node run.mjs bench FILE.wasm`.
//
// A guest that may loop runs in a worker that is ended after half a second. Ends with "N passed, N failed" and exit code 1 on a failure.

import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";
import { runCases } from "./cases.mjs";
import { compile, Fault, Policy, view } from "./host.mjs";
import { HOOKS, Refused } from "./wasm.mjs";

// What a guest that must never return is given, and what one that must return is given on a machine however busy.
const LOOPS_MS = 500, RETURNS_MS = 20_000;
// Guests that never return where they were stopped: loading or hook is told by the expectation.
const MAY_LOOP = /^(fault deadline|refused (start|buffer|configure))$/;

const here = fileURLToPath(import.meta.url);

// What a host that keeps to ABI.md says of a module: "refused RULE", "fault KIND" or "VERDICT" of its first hook.
function judge(bytes) {
  try {
    const policy = new Policy(compile(bytes));
    const hook = HOOKS.find((name) => policy.exports[name]).slice("cf_on_".length);
    return policy.call(hook, view(hook, {})).verdict;
  } catch (error) {
    if (error instanceof Refused) return `refused ${error.rule}`;
    if (error instanceof Fault) return `fault ${error.kind}`;
    throw error;
  }
}

if (!isMainThread) {
  parentPort.postMessage(judge(readFileSync(workerData)));
} else {
  const [what, ...rest] = process.argv.slice(2);
  const run = { cases, conformance, bench }[what];
  if (!run || !rest.length) {
    console.error("usage: node run.mjs cases DIR|FILE.wasm ... | conformance DIR | bench FILE.wasm");
    process.exit(2);
  }
  const { passed, failed } = await run(rest);
  if (passed !== undefined) console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}

function cases(paths) {
  const files = paths.flatMap((path) => statSync(path).isDirectory()
    ? readdirSync(path).filter((name) => name.endsWith(".wasm")).sort().map((name) => join(path, name)) : [path]);
  let passed = 0, failed = 0;
  for (const file of files) {
    const result = runCases(file);
    for (const failure of result.failures) console.error(failure);
    console.log(`${basename(file)}: ${result.passed} of ${result.passed + result.failures.length} cases`);
    passed += result.passed;
    failed += result.failures.length + (result.passed + result.failures.length === 0 ? 1 : 0);
  }
  return { passed, failed };
}

function inWorker(path, patience) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(here, { workerData: path });
    const timer = setTimeout(() => { worker.terminate(); resolve("deadline"); }, patience);
    worker.once("message", (answer) => { clearTimeout(timer); resolve(answer); });
    worker.once("error", (error) => { clearTimeout(timer); reject(error); });
  });
}

// DIR has the built guests; the table in conformance/README.md says what must become of each.
async function conformance([dir]) {
  const table = readFileSync(join(dirname(dirname(here)), "conformance", "README.md"), "utf8")
    .split("\n").map((line) => line.match(/^\| `([a-z0-9_]+)` \| [^|]* \| ([^|]+) \|/)).filter(Boolean);
  const built = readdirSync(dir).filter((name) => name.endsWith(".wasm")).map((name) => name.slice(0, -5));
  let passed = 0, failed = 0, skipped = 0;
  for (const [, name, must] of table) {
    if (must.endsWith("(host only)")) {
      console.log(`SKIPPED ${name}: ${must}; this runner cannot tell, the host's tests do`);
      skipped++;
      continue;
    }
    if (!built.includes(name)) { console.error(`${name}: not built`); failed++; continue; }
    const answer = await inWorker(join(dir, `${name}.wasm`), MAY_LOOP.test(must) ? LOOPS_MS : RETURNS_MS);
    const right = answer === must || (answer === "deadline" && MAY_LOOP.test(must));
    if (!right) console.error(`${name}: ${answer}, must be ${must}`);
    right ? passed++ : failed++;
  }
  for (const name of built) if (!table.some(([, listed]) => listed === name)) { console.error(`${name}: not in the table`); failed++; }
  if (skipped) console.log(`${skipped} skipped`);
  return { passed, failed };
}

// Time of one call of the first hook with a small view; node's, not the proxy's.
function bench([file]) {
  const policy = new Policy(compile(readFileSync(file)));
  const hook = HOOKS.find((name) => policy.exports[name]).slice("cf_on_".length);
  const small = view(hook, hook === "request" ? { command: "GET", keys: ["user:1"], frame: "*2\r\n$3\r\nGET\r\n$6\r\nuser:1\r\n" } : {});
  const rounds = 200_000;
  for (let i = 0; i < rounds; i++) policy.call(hook, small);
  const start = process.hrtime.bigint();
  for (let i = 0; i < rounds; i++) policy.call(hook, small);
  console.log(`${basename(file)} ${hook}: ${Number(process.hrtime.bigint() - start) / rounds} ns a call, writing the view and decoding in JavaScript included`);
  return {};
}
