//! The OpenAPI document of the running binary: valid by a validator that is not ours, and true of what is answered.

use crossfade_loadtest::crossfade::INTERLAY;
use crossfade_loadtest::rig::{MIGRATION, Rig};
use crossfade_loadtest::server::{Kind, repository};
use crossfade_loadtest::skip;

#[test]
fn the_openapi_document_is_valid_and_the_answers_fit_it() {
    let packages = repository().join(".tools/py");
    if !packages.join("openapi_spec_validator").is_dir() {
        skip!("no openapi_spec_validator in .tools/py: run scripts/install-test-servers.sh");
    }
    let rig = Rig::start(Kind::Redis);
    rig.create();
    rig.advance_to("compare");
    let script = repository().join("loadtest/clients/openapi.py");
    let ran = std::process::Command::new("python3")
        .arg(script)
        .args([format!("http://127.0.0.1:{}", rig.proxy.admin_port), INTERLAY.to_owned(), MIGRATION.to_owned()])
        .env("PYTHONPATH", packages)
        .output()
        .expect("python3 runs");
    let (said, complained) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}\n{complained}");
    eprintln!("{said}");
}
