;; Makes counters without end.
(module
  (import "crossfade" "counter_add" (func $counter_add (param i32 i32 i64) (result i32)))
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (func (export "cf_on_request") (param i32) (result i64) (local $n i32) (loop $again (i32.store8 (i32.const 0) (i32.add (i32.const 97) (i32.rem_u (local.get $n) (i32.const 26)))) (i32.store8 (i32.const 1) (i32.add (i32.const 97) (i32.div_u (local.get $n) (i32.const 26)))) (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $again (i32.eqz (call $counter_add (i32.const 0) (i32.const 2) (i64.const 1))))) (if (i32.ne (local.get $n) (i32.const 65)) (then unreachable)) (i64.const 0x11)))
