;; Imports a memory by an allowed name.
(module
  (import "crossfade" "log" (memory 1))
  (func (export "cf_abi_v1"))
  (export "memory" (memory 0))
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (func (export "cf_on_request") (param i32) (result i64) (i64.const 0x10)))
