;; Logs without end.
(module
  (import "crossfade" "log" (func $log (param i32 i32 i32) (result i32)))
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (func (export "cf_on_request") (param i32) (result i64) (local $n i32) (loop $again (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $again (i32.eqz (call $log (i32.const 3) (i32.const 0) (i32.const 1))))) (if (i32.ne (local.get $n) (i32.const 11)) (then unreachable)) (i64.const 0x11)))
