//! Moves Redis and Valkey servers, by the feed that the route names. Lives on the movers' thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::feed_mover::FeedMover;
use super::lane_mover::{LaneMover, by_side};
use super::verify::{SidesSpec, verify};
use crate::contract::{
    Ability, Check, Drained, HoldError, MoverEvent, OwnGate, Released, Route, ShadowFacts, Verified, VerifySpec,
};
use crate::error::{JobError, Unsupported};
use crate::news::News;
use crate::progress::Progress;
use base::model::{FeedKind, InterlayName, Sighting};
use bus::{CompanionEvent, Directive, Mailbox};

/// The mover of one Redis interlay.
#[derive(Debug)]
pub struct RedisMover {
    lane: LaneMover,
    feed: FeedMover,
    /// How the servers stand when the process starts.
    first: Option<Route>,
}

/// What can be done to a Redis interlay.
///
/// # Errors
/// [`Unsupported`].
pub fn supports(interlay: &InterlayName, ability: Ability) -> Result<(), Unsupported> {
    let lacks = |what: &str| {
        Err(Unsupported(format!(
            "interlay {interlay} is of kind redis, which has no {what}: its changes of authority hold writes by a fence of their own"
        )))
    };
    match ability {
        Ability::Migrate | Ability::Policies => Ok(()),
        Ability::Pause => lacks("pause"),
        Ability::Resume => lacks("pause to end"),
        Ability::ListSessions => lacks("list of sessions"),
        Ability::AnalyzeStatements => Err(Unsupported(format!(
            "interlay {interlay} is of kind redis: its workload is analysed by a migration (`crossfade migration create`, phase analyze)"
        ))),
    }
}

/// A server that holds what a policy made of the data cannot take the place of the one that holds the data.
#[must_use]
pub fn own_gates(facts: Result<&ShadowFacts, &str>) -> Vec<OwnGate> {
    let check = match facts.map(|facts| facts.applied.altered) {
        Ok(0) => Check::Passed("0 keys".to_owned()),
        Ok(altered) => Check::Failed(format!("{altered} keys changed or left out by the records policy")),
        Err(why) => Check::Unknown(why.to_owned()),
    };
    let way_back = match facts.map(|facts| facts.way_back) {
        Ok(true) => Check::Passed("ready".to_owned()),
        Ok(false) => Check::Failed("the target's own stream of changes is not followed yet".to_owned()),
        Err(why) => Check::Unknown(why.to_owned()),
    };
    vec![
        OwnGate {
            name: "records_unaltered",
            check,
            threshold: "0 keys: what they held would be lost (take the records policy away and let everything be copied)",
        },
        OwnGate {
            name: "way_back",
            check: way_back,
            threshold: "ready: the source is kept in step from the first instant after the change",
        },
    ]
}

impl RedisMover {
    pub fn new(
        interlay: InterlayName,
        cores: &[Mailbox<Directive>],
        route: Option<Route>,
        events: mpsc::Sender<(InterlayName, MoverEvent)>,
    ) -> Result<Self, String> {
        let by = |feed: FeedKind| route.clone().filter(|route| route.feed == feed);
        let lane = LaneMover::new(interlay.clone(), cores, by(FeedKind::Lane), events.clone())?;
        let feed = FeedMover::new(interlay, cores.to_vec(), events);
        Ok(Self { lane, feed, first: by(FeedKind::Replication) })
    }

    /// The thread runs: goes on with what was kept in step when the process last ended.
    pub fn start(&self) {
        if let Some(route) = &self.first {
            self.feed.keep_in_step(route.clone());
        }
    }

    pub async fn on_news(&self, news: News) {
        match news {
            News::Companion(CompanionEvent::Lane(event)) => self.lane.on_lane(event).await,
            News::Hold { core, ticket, event } => self.feed.on_hold(core, ticket, event),
            News::Confirm { core, ticket } => self.feed.on_confirm(core, ticket),
            News::Reads(reads) => self.feed.on_reads(reads),
        }
    }

    pub fn keep_in_step(&self, route: Route) -> Result<(), JobError> {
        match route.feed {
            FeedKind::Lane => self.lane.keep_in_step(route),
            FeedKind::Replication => {
                self.feed.keep_in_step(route);
                Ok(())
            }
        }
    }

    pub fn leave_alone(&self) -> Result<(), JobError> {
        self.feed.leave_alone();
        self.lane.leave_alone()
    }

    pub async fn exchange(&self, route: Route) -> Result<(), JobError> {
        match route.feed {
            FeedKind::Lane => self.lane.exchange(route),
            FeedKind::Replication => self.feed.exchange(route).await,
        }
    }

    pub async fn hold(&self, budget: Duration) -> Result<Drained, HoldError> {
        if self.feed.is_running() { self.feed.hold(budget).await } else { self.lane.hold(budget).await }
    }

    pub async fn release(&self) -> Result<Released, JobError> {
        if self.feed.is_running() { self.feed.release().await } else { self.lane.release().await }
    }

    pub async fn verify(&self, spec: VerifySpec, progress: Arc<Progress>) -> Result<Verified, JobError> {
        let (route, prober) = if self.feed.is_running() { self.feed.prober()? } else { self.lane.prober()? };
        let side = route.side;
        let excluded = self.feed.exclusions();
        let sides = SidesSpec { authority: route.authority, shadow: route.shadow, compare: spec, excluded };
        let found = verify(sides, prober, progress).await?;
        let sighting = |one: super::verify::Divergence| {
            let (source, target) = by_side(side, one.source, one.target);
            Sighting { database: one.database, key: one.key, class: one.class.to_owned(), source, target }
        };
        Ok(Verified {
            keys: found.keys,
            divergent: found.divergent.into_iter().map(sighting).collect(),
            inconclusive: found.inconclusive,
        })
    }

    /// They are copied again.
    pub fn repair(&self, differing: &[Sighting]) -> Result<(), JobError> {
        if self.feed.is_running() { self.feed.repair(differing) } else { self.lane.repair(differing) }
    }
}
