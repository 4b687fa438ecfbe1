;; A buffer of 256 KiB and a byte.
(module
  (func (export "cf_abi_v1"))
  (memory (export "memory") 8)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 262145))
  (func (export "cf_on_request") (param i32) (result i64) (i64.const 0x10)))
