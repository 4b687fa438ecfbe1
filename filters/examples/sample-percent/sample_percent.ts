// Example: mirrors and compares a share of the clients rather than of the commands, so that what one client sees on both
// sides hangs together. Settings: "percent" (10) of the clients; "reads_only" (true).

import { Class, config, forCommand, forward, mirror, mirrorCompare, request } from "../../sdk/assemblyscript/index";
export { cf_abi_v1, cf_buffer, cf_buffer_len } from "../../sdk/assemblyscript/index";

let limit: u64 = 0;
let readsOnly: bool = true;

export function cf_configure(length: i32): i32 {
  config.begin(length);
  config.only("percent reads_only");
  limit = <u64>(config.number("percent", 10.0, 0.0, 100.0) * 42949672.96);
  readsOnly = config.flag("reads_only", true);
  return config.done();
}

// Client numbers are given in order; this spreads them evenly over all u32.
function spread(client: u64): u64 {
  let hash = client * 0x9e3779b97f4a7c15;
  hash ^= hash >> 32;
  hash *= 0xd6e8feb86659fd93;
  return hash >> 32;
}

export function cf_on_request(length: i32): u64 {
  const read = request.classIs(Class.Read);
  if (!read && (readsOnly || !request.classIs(Class.Write))) return forCommand(forward());
  // Depends on the client, which no memo knows: not to be remembered.
  if (spread(request.client) >= limit) return forward();
  return read ? mirrorCompare() : mirror();
}
