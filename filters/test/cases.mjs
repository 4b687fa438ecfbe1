// Runs recorded cases (ABI.md section 9) on a module.

import { readFileSync } from "node:fs";
import { compile, Fault, Policy, view } from "./host.mjs";
import { bytes } from "./views.mjs";
import { Refused } from "./wasm.mjs";

// Sentences about what is not as expected; none when all is.
function differences(expect, verdict, policy) {
  const { verdict: word, memo = "none", prefix, text, text_contains: part, replacement, counters = {}, ...rest } = expect;
  const wrong = Object.keys(rest).map((name) => `unknown expectation ${name}`);
  const said = verdict.text.toString();
  if (verdict.verdict !== word) wrong.push(`verdict ${verdict.verdict}${said ? ` (${said})` : ""}, expected ${word}`);
  if (verdict.memo !== memo) wrong.push(`memo ${verdict.memo}, expected ${memo}`);
  if (prefix !== undefined && verdict.prefix !== prefix) wrong.push(`prefix ${verdict.prefix}, expected ${prefix}`);
  if (text !== undefined && said !== text) wrong.push(`text ${JSON.stringify(said)}, expected ${JSON.stringify(text)}`);
  if (part !== undefined && !said.includes(part)) wrong.push(`text ${JSON.stringify(said)} does not contain ${JSON.stringify(part)}`);
  if (replacement !== undefined && !bytes(replacement).equals(verdict.text)) wrong.push(`replacement ${verdict.text.toString("hex")}`);
  for (const [id, value] of Object.entries(counters))
    if (policy.counters.get(id) !== BigInt(value)) wrong.push(`counter ${id} is ${policy.counters.get(id)}, expected ${value}`);
  return wrong;
}

// The frames that `frame_read` reads from: the bytes that the case's view was made of.
function frames(hook, object) {
  if (hook === "request") return [bytes(object.frame ?? "")];
  if (hook === "pair") return [bytes(object.request?.frame ?? ""), bytes(object.source?.bytes ?? ""), bytes(object.target?.bytes ?? "")];
  return hook === "record" ? [null, null, null, bytes(object.value ?? "")] : null;
}

function step(policy, { hook, view: object = {}, expect, repeat = 1, ...rest }) {
  for (const name of Object.keys(rest)) throw new Error(`unknown field ${name}`);
  for (let time = 1; time <= repeat; time++) {
    let verdict;
    try {
      verdict = policy.call(hook, view(hook, object), frames(hook, object));
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      verdict = { verdict: `fault:${error.kind}`, memo: "none", prefix: 0, text: Buffer.from("") };
    }
    const wrong = differences(expect, verdict, policy);
    if (wrong.length) throw new Error(`${repeat > 1 ? `time ${time}: ` : ""}${wrong.join("; ")}`);
  }
}

function one(module, { case: name, configure, now_ms: nowMs, expect_configure_error: refusal, steps, ...single }) {
  if (!name) throw new Error("a case needs a name");
  let policy;
  try {
    policy = new Policy(module, { configure, nowMs });
  } catch (error) {
    if (!(error instanceof Refused) || refusal === undefined) throw error;
    if (!error.message.includes(refusal)) throw new Error(`refused with ${JSON.stringify(error.message)}, expected ${JSON.stringify(refusal)}`);
    return;
  }
  if (refusal !== undefined) throw new Error("the configuration was accepted");
  (steps ?? [single]).forEach((each, index) => {
    try {
      step(policy, each);
    } catch (error) {
      throw new Error(`${steps ? `step ${index + 1}: ` : ""}${error.message}`);
    }
  });
}

// { passed, failures: [sentence] } of one module and its file of cases.
export function runCases(wasmPath, casesPath = wasmPath.replace(/\.wasm$/, ".cases.jsonl")) {
  const module = compile(readFileSync(wasmPath));
  const result = { passed: 0, failures: [] };
  readFileSync(casesPath, "utf8").split("\n").forEach((line, index) => {
    if (!line.trim() || line.startsWith("//")) return;
    let name = `line ${index + 1}`;
    try {
      const parsed = JSON.parse(line);
      name = parsed.case ?? name;
      one(module, parsed);
      result.passed++;
    } catch (error) {
      result.failures.push(`${casesPath}:${index + 1}: ${name}: ${error.message}`);
    }
  });
  return result;
}
