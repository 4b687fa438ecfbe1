;; Address and length that wrap around 32 bits.
(module
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const -4096))
  (func (export "cf_buffer_len") (result i32) (i32.const 8192))
  (func (export "cf_on_request") (param i32) (result i64) (i64.const 0x10)))
