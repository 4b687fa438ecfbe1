;; The start function calls an import.
(module
  (import "crossfade" "log" (func $log (param i32 i32 i32) (result i32)))
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (global $answer (mut i32) (i32.const 0))
  (func $start (global.set $answer (call $log (i32.const 3) (i32.const 0) (i32.const 1))))
  (start $start)
  (func (export "cf_on_request") (param i32) (result i64) (if (i32.ne (global.get $answer) (i32.const -4)) (then unreachable)) (i64.const 0x11)))
