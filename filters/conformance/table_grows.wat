;; Grows its table to 1025.
(module
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (table $t 1 funcref)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (func (export "cf_on_request") (param i32) (result i64) (if (i32.ne (table.grow $t (ref.null func) (i32.const 1024)) (i32.const -1)) (then unreachable)) (i64.const 0x11)))
