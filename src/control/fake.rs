//! Tests only: a control loop on a scratch store with one core that acks every plan, for the storeys above.

use std::path::Path;
use std::rc::{Rc, Weak};

use super::{Handle, Intent, Running, start};
use crate::bus::{Directive, Report, Switchboard};
use crate::config::Config;
use crate::model::CoreId;

/// Runs on the present `LocalSet`; the fake core ends when `alive` is dropped.
pub fn start_on(dir: &Path, alive: &Rc<()>) -> (Running, Handle) {
    // Nothing listens on the discard port of these addresses: jobs that look at a server fail at once.
    let text = format!(
        "[data]\ndir = {:?}\n[endpoints.old]\nkind = \"redis\"\nurl = \"redis://u:hunter2@127.0.0.1:9\"\n\
         [endpoints.new]\nkind = \"redis\"\nurl = \"redis://127.0.0.2:9\"\n\
         [interlays.orders]\nkind = \"redis\"\nlisten = \"127.0.0.1:1\"\nsource = \"old\"\ntarget = \"new\"\n",
        dir.display().to_string()
    );
    let config = Config::parse(Path::new("test.toml"), &text).unwrap();
    let bus = Switchboard::new(1).unwrap();
    let (core, reports, alive) = (bus.cores[0].clone(), bus.reports.clone(), Rc::downgrade(alive));
    tokio::task::spawn_local(async move {
        while Weak::strong_count(&alive) > 0 {
            if let Some(Directive::Publish(plan)) = core.pop() {
                let (interlay, generation) = (plan.interlay.clone(), plan.generation);
                reports.push(Report::PlanAcked { core: CoreId(0), interlay, generation }).unwrap();
            }
            tokio::task::yield_now().await;
        }
    });
    start(Intent::load(config).unwrap(), bus, "fake".to_owned()).unwrap()
}
