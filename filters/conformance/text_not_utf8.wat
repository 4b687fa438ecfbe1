;; Refuses with bytes that are no text.
(module
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (func (export "cf_on_request") (param i32) (result i64) (i64.store (i32.const 0) (i64.const 0xff0d0a00fe80c0)) (i64.const 0x0000000800000013)))
