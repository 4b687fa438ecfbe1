;; The hook calls a table entry that is empty.
(module
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (type $t (func (result i64)))
  (table 1 funcref)
  (func (export "cf_on_request") (param i32) (result i64) (call_indirect (type $t) (i32.const 0))))
