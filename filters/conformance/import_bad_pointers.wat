;; Gives imports ranges outside its memory.
(module
  (import "crossfade" "log" (func $log (param i32 i32 i32) (result i32)))
  (import "crossfade" "counter_add" (func $counter_add (param i32 i32 i64) (result i32)))
  (import "crossfade" "frame_read" (func $frame_read (param i32 i32 i32 i32) (result i32)))
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (func (export "cf_on_request") (param i32) (result i64) (if (i32.ne (call $log (i32.const 3) (i32.const 131072) (i32.const 1)) (i32.const -2)) (then unreachable)) (if (i32.ne (call $log (i32.const 3) (i32.const -1) (i32.const -1)) (i32.const -2)) (then unreachable)) (if (i32.ne (call $counter_add (i32.const 131071) (i32.const 2) (i64.const 1)) (i32.const -2)) (then unreachable)) (if (i32.ne (call $frame_read (i32.const 0) (i32.const 0) (i32.const 131000) (i32.const 100)) (i32.const -2)) (then unreachable)) (i64.const 0x11)))
