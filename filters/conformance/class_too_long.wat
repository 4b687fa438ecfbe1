;; A class of divergence of 65 bytes.
(module
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (func (export "cf_on_pair") (param i32) (result i64) (i64.const 0x0000004100000023)))
