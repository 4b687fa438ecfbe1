//! Tests only: a control loop on a scratch store with one core that acks every plan, for the API and other folders.
//!
//! Its PostgreSQL interlay `shop` can be paused, `stuck` never drains: one session is in a transaction.

use std::path::Path;
use std::rc::{Rc, Weak};

use super::{Handle, Intent, Running, start};
use crate::config::Config;
use base::model::{CoreId, Endpoint, EndpointName, ProtocolKind, SessionInfo, SessionState, StatementSample};
use bus::{Directive, HoldEvent, HoldOrder, Published, Report, Switchboard};

/// Lets tests use what another has compiled, in an earlier run too: compiling is slow where the compiler itself is not optimised.
pub fn share_compiled_filters(data_dir: &Path) {
    let shared = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-compiled");
    std::fs::create_dir_all(&shared).unwrap();
    std::fs::create_dir_all(data_dir).unwrap();
    // One that is there already is from an earlier start on this directory.
    let _ = std::os::unix::fs::symlink(shared, data_dir.join("filter-cache"));
}

/// The answer of a store whose answers come at once.
pub fn at_once<T>(answer: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(answer).expect("a file answers at once")
}

/// An endpoint that nothing listens on.
pub fn endpoint(name: &str) -> Endpoint {
    Endpoint::from_url(EndpointName::new(name).unwrap(), ProtocolKind::Redis, "redis://127.0.0.1:9").unwrap()
}

/// Runs on the present `LocalSet`; the fake core ends when `alive` is dropped.
pub async fn start_on(dir: &Path, alive: &Rc<()>) -> (Running, Handle) {
    // Nothing listens on the discard port of these addresses: jobs that look at a server fail at once.
    let text = format!(
        "[data]\ndir = {:?}\n[endpoints.old]\nkind = \"redis\"\nurl = \"redis://u:hunter2@127.0.0.1:9\"\n\
         [endpoints.new]\nkind = \"redis\"\nurl = \"redis://127.0.0.2:9\"\n\
         [interlays.orders]\nkind = \"redis\"\nlisten = \"127.0.0.1:1\"\nsource = \"old\"\ntarget = \"new\"\n\
         [endpoints.pg]\nkind = \"postgres\"\nurl = \"postgres://u:hunter2@127.0.0.1:9/db\"\n\
         [endpoints.pg-new]\nkind = \"postgres\"\nurl = \"postgres://u:hunter2@127.0.0.2:9/db\"\n\
         [interlays.shop]\nkind = \"postgres\"\nlisten = \"127.0.0.1:2\"\nsource = \"pg\"\ntarget = \"pg-new\"\nauth = {{ mode = \"relay\" }}\n\
         [interlays.stuck]\nkind = \"postgres\"\nlisten = \"127.0.0.1:3\"\nsource = \"pg\"\nauth = {{ mode = \"relay\" }}\n",
        dir.display().to_string()
    );
    let config = Config::parse(Path::new("test.toml"), &text).unwrap();
    share_compiled_filters(dir);
    let bus = Switchboard::new(1).unwrap();
    let (core, reports, alive) = (bus.cores[0].clone(), bus.reports.clone(), Rc::downgrade(alive));
    tokio::task::spawn_local(async move {
        while Weak::strong_count(&alive) > 0 {
            while let Some(report) = core.pop().and_then(answer) {
                reports.push(report).unwrap();
            }
            tokio::task::yield_now().await;
        }
    });
    start(Intent::load(config).await.unwrap(), bus, "fake".to_owned()).await.unwrap()
}

fn answer(directive: Directive) -> Option<Report> {
    let core = CoreId(0);
    match directive {
        Directive::Publish(Published { plan, .. }) => {
            let (interlay, generation) = (plan.interlay.clone(), plan.generation);
            Some(Report::PlanAcked { core, interlay, generation })
        }
        Directive::Policies { interlay, policies } => {
            let (generation, before) = (policies.generation, Vec::new());
            Some(Report::PoliciesAdopted { core, interlay, generation, before })
        }
        Directive::Hold { interlay, order: HoldOrder::Begin { ticket } | HoldOrder::Shut { ticket } } => {
            let drains = interlay.as_str() != "stuck";
            drains.then_some(Report::Hold { core, interlay, ticket, event: HoldEvent::Drained })
        }
        Directive::Hold { interlay, order: HoldOrder::Move { ticket, .. } } => {
            Some(Report::Hold { core, interlay, ticket, event: HoldEvent::Moved { next_us: None } })
        }
        Directive::Hold { interlay, order: HoldOrder::Release { ticket } } => {
            let event = HoldEvent::Released { held: 3, longest_hold_us: 1500 };
            Some(Report::Hold { core, interlay, ticket, event })
        }
        Directive::Sessions { interlay, ticket } => {
            let session = SessionInfo {
                id: 12,
                user: "app".to_owned(),
                database: "db".to_owned(),
                application: "psql".to_owned(),
                peer: Some(([127, 0, 0, 1], 4444).into()),
                state: SessionState::IdleInTransaction,
                age_us: 3_200_000,
                keeps: vec!["listen"],
            };
            Some(Report::Sessions { core, interlay, ticket, total: 1, busy: 1, sessions: vec![session] })
        }
        Directive::Sample => {
            let text = "select 'hunter2'".into();
            let sample = StatementSample { text, cut: false, latency_us: 100, weight: 4, failed: false };
            let interlay = base::model::InterlayName::new("shop").unwrap();
            Some(Report::Statements { interlay, samples: vec![sample] })
        }
        Directive::Companion { .. } | Directive::Confirm { .. } | Directive::Drain { .. } => None,
    }
}
