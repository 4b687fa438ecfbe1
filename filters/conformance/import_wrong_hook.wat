;; Reads a frame in cf_on_window.
(module
  (import "crossfade" "frame_read" (func $frame_read (param i32 i32 i32 i32) (result i32)))
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (func (export "cf_on_window") (param i32) (result i64) (if (i32.ne (call $frame_read (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)) (i32.const -4)) (then unreachable)) (i64.const 0x30)))
