// The default rollback policy: goes back when the target stays worse than it may be, not when one second was bad.
//
// Looks at the last `window_s` seconds (10) together: errors of the target in percent beyond those of the source
// (`error_percent`, 5), p99 of the target against the source (`p99_ratio`, 3, counted only above `p99_floor_us`, 2000), new
// divergences in percent of the compared pairs (`divergence_percent`, 1, once `divergence_floor`, 10, were found). A measure over its
// threshold holds; one that stays over it for `trip_s` seconds (5) in the phases that serve from the target rolls back, elsewhere it goes on holding.
// Hysteresis: it stops holding when every measure has been under `clear_percent` (80) of its threshold for `clear_s` seconds (10).
// A side with fewer than `requests_min` (100) requests in the window is not judged. Each threshold set to 0 is switched off.
// After a change of phase or authority, and while the workflow is paused, it begins anew.

import { carryOn, config, flags, hold, Phase, rollBack, say, Text, window } from "../../sdk/assemblyscript/index";
export { cf_abi_v1, cf_buffer, cf_buffer_len } from "../../sdk/assemblyscript/index";

const SECONDS_MAX: i32 = 300;
// One second: source requests, target requests, source errors, target errors, compared, new divergences; all u64.
const SECOND_BYTES: i32 = 48;
const ring: usize = memory.data(14400); // SECONDS_MAX * SECOND_BYTES
const sums: usize = memory.data(48);

enum Measure { None, Errors, Latency, Divergence }

let windowSeconds: i32 = 10;
let tripSeconds: i32 = 5;
let clearSeconds: i32 = 10;
let errorPercent: f64 = 5;
let p99Ratio: f64 = 3;
let p99FloorUs: f64 = 2000;
let divergencePercent: f64 = 1;
let divergenceFloor: f64 = 10;
let clearShare: f64 = 0.8;
let requestsMin: u64 = 100;

let filled: i32 = 0;
let position: i32 = 0;
let phase: i32 = 0;
let secondsOver: i32 = 0;
let secondsUnder: i32 = 0;
let holding: bool = false;
// p99 has no sum over seconds: a moving mean of the ratio, 0 = none yet.
let ratio: f64 = 0;
let ratioSeconds: i32 = 0;

export function cf_configure(length: i32): i32 {
  config.begin(length);
  config.only("window_s trip_s clear_s error_percent p99_ratio p99_floor_us divergence_percent divergence_floor clear_percent requests_min");
  windowSeconds = <i32>config.number("window_s", 10, 1, SECONDS_MAX);
  tripSeconds = <i32>config.number("trip_s", 5, 1, 3600);
  clearSeconds = <i32>config.number("clear_s", 10, 1, 3600);
  errorPercent = config.number("error_percent", 5, 0, 100);
  p99Ratio = config.number("p99_ratio", 3, 0, 1000);
  p99FloorUs = config.number("p99_floor_us", 2000, 0, 60000000);
  divergencePercent = config.number("divergence_percent", 1, 0, 100);
  divergenceFloor = config.number("divergence_floor", 10, 0, 1000000000);
  clearShare = config.number("clear_percent", 80, 1, 100) / 100.0;
  requestsMin = <u64>config.number("requests_min", 100, 1, 1000000000);
  return config.done();
}

function beginAnew(): void {
  filled = 0;
  position = 0;
  secondsOver = 0;
  secondsUnder = 0;
  holding = false;
  ratio = 0;
  ratioSeconds = 0;
  memory.fill(sums, 0, SECOND_BYTES);
}

function count(field: i32, value: u64): void {
  const place = ring + position * SECOND_BYTES + field * 8;
  const left: u64 = filled == windowSeconds ? load<u64>(place) : 0;
  store<u64>(place, value);
  store<u64>(sums + field * 8, load<u64>(sums + field * 8) - left + value);
}

function sum(field: i32): f64 { return <f64>load<u64>(sums + field * 8); }

function remember(): void {
  count(0, window.sourceRequests);
  count(1, window.targetRequests);
  count(2, window.sourceErrors);
  count(3, window.targetErrors);
  count(4, window.compared);
  count(5, window.divergencesNew);
  position = (position + 1) % windowSeconds;
  if (filled < windowSeconds) filled++;
  if (window.sourceP99Us > 0 && window.targetP99Us > 0) {
    const now = <f64>window.targetP99Us > p99FloorUs ? <f64>window.targetP99Us / <f64>window.sourceP99Us : 0.0;
    ratioSeconds = ratioSeconds < windowSeconds ? ratioSeconds + 1 : windowSeconds;
    ratio += (now - ratio) / <f64>ratioSeconds;
  }
}

// Percent of the target's requests that failed, less those of the source; below 0 when the source is worse.
function errorsNow(): f64 {
  if (sum(1) < <f64>requestsMin) return 0;
  const source = sum(0) < <f64>requestsMin ? 0.0 : sum(2) * 100.0 / sum(0);
  return sum(3) * 100.0 / sum(1) - source;
}

function divergenceNow(): f64 {
  if (sum(4) == 0 || sum(5) < divergenceFloor) return 0;
  return sum(5) * 100.0 / sum(4);
}

// The first measure above `share` of its threshold.
function over(share: f64): Measure {
  if (errorPercent > 0 && errorsNow() > errorPercent * share) return Measure.Errors;
  if (p99Ratio > 0 && sum(1) >= <f64>requestsMin && ratio > p99Ratio * share) return Measure.Latency;
  if (divergencePercent > 0 && divergenceNow() > divergencePercent * share) return Measure.Divergence;
  return Measure.None;
}

function reason(measure: Measure): Text {
  if (measure == Measure.Errors) {
    return say("error rate of the target ").decimal(errorsNow()).add(" % above the source's, over ").decimal(errorPercent).add(" %");
  }
  if (measure == Measure.Latency) {
    return say("p99 of the target ").decimal(ratio).add(" times the source's, over ").decimal(p99Ratio);
  }
  if (measure == Measure.Divergence) {
    return say("divergences ").decimal(divergenceNow()).add(" % of compared pairs, over ").decimal(divergencePercent).add(" %");
  }
  return say("back under the thresholds for ").number(secondsUnder).add(" s of ").number(clearSeconds).add(" s");
}

export function cf_on_window(length: i32): u64 {
  const changed = window.flags & (flags.WINDOW_FLIPPED | flags.WINDOW_PHASE_CHANGED | flags.WINDOW_PAUSED);
  if (changed != 0 || window.phase != phase) {
    phase = window.phase;
    beginAnew();
    return carryOn();
  }
  remember();
  const worst = over(1.0);
  if (worst != Measure.None) {
    secondsOver++;
    secondsUnder = 0;
    holding = true;
    if (secondsOver >= tripSeconds && phase == Phase.Migrate) {
      const text = reason(worst).add(" for ").number(secondsOver).add(" s");
      return rollBack(text);
    }
    return hold(reason(worst));
  }
  secondsOver = 0;
  if (!holding) return carryOn();
  secondsUnder = over(clearShare) == Measure.None ? secondsUnder + 1 : 0;
  if (secondsUnder >= clearSeconds) {
    holding = false;
    secondsUnder = 0;
    return carryOn();
  }
  return hold(reason(Measure.None));
}
