//! Filters in seats for the tests of other crates: the shipped ones and small ones in WAT. Tests only.

use super::host::{Host, HostOptions, Instance};
use super::seat::{CorePolicies, PairSeat, RecordSeat, RequestSeat, SeatSetup, SharedPolicies};
use base::model::{FilterName, OnFault, PolicyMode, PolicySetting};

/// The exports of every guest.
const COMMON: &str = r#"
    (func (export "cf_abi_v1"))
    (memory (export "memory") 2)
    (func (export "cf_buffer") (result i32) (i32.const 0))
    (func (export "cf_buffer_len") (result i32) (i32.const 65536))
"#;

pub fn host() -> Host {
    Host::new(HostOptions { instances_max: 16, cache_dir: None, clock: || 0 }).expect("a host")
}

/// A file of `filters/dist`.
pub fn shipped(host: &Host, name: &str, config: &str) -> Instance {
    let path = format!("{}/../../filters/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    made(host, name, &bytes, config)
}

/// A guest with one hook, `(param i32) (result i64)`, and this body.
pub fn guest(host: &Host, hook: &str, body: &str) -> Instance {
    let text = format!("(module {COMMON} (func (export \"{hook}\") (param i32) (result i64) {body}))");
    made(host, "guest", text.as_bytes(), "{}")
}

fn made(host: &Host, name: &str, bytes: &[u8], config: &str) -> Instance {
    let module = host.load(name, bytes).unwrap_or_else(|refused| panic!("{refused:?}"));
    module.instantiate(config, 1).unwrap_or_else(|refused| panic!("{refused:?}"))
}

pub fn setup(instance: Instance, mode: PolicyMode, on_fault: OnFault) -> SeatSetup {
    let filter = FilterName::new("tested").expect("a name");
    let setting = PolicySetting { filter, mode, on_fault, config: "{}".to_owned() };
    SeatSetup { setting, instance, seed: 7, identity: 1 }
}

/// Seats in mode `block` that fail open.
#[derive(Default)]
pub struct Seats {
    pub request: Option<Instance>,
    pub pair: Option<Instance>,
    pub record: Option<Instance>,
}

impl Seats {
    pub fn fill(self, shared: &SharedPolicies) {
        let setup = |instance| setup(instance, PolicyMode::Block, OnFault::FailOpen);
        let generation = shared.borrow().generation + 1;
        shared.replace(CorePolicies {
            generation,
            request: self.request.map(|instance| RequestSeat::new(setup(instance))),
            pair: self.pair.map(|instance| PairSeat::new(setup(instance))),
            record: self.record.map(|instance| RecordSeat::new(setup(instance))),
        });
    }
}
