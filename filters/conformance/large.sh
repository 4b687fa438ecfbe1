#!/bin/sh
# Prints a module that keeps every rule but the one on size: a data segment of 10 MB, passive so that it needs no memory.
set -eu
cat <<'WAT'
(module
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (func (export "cf_on_request") (param i32) (result i64) (i64.const 0x10))
WAT
printf '  (data "'
head -c 10000000 /dev/zero | tr '\0' x
printf '"))\n'
