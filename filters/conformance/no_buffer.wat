;; Has no exchange buffer.
(module
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_on_request") (param i32) (result i64) (i64.const 0x10)))
