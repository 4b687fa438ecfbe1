//! The deterministic simulator: clients, relays, the replication feed and flips in virtual time, against model servers. Tests only.
//!
//! A run follows from a seed alone. `CROSSFADE_SEED=n` plays one seed, `SEEDS=n` so many; a seed that finds something becomes a case in `tests`.
//!
//! **What runs here is the product:** the relays of two cores (`proxy::redis::relay`, behind `proxy::contract::Relay`), and the whole Redis
//! mover (`movers::redis::mover`) on tokio with a paused clock: the feed (follower, spill, stream reader, history writer, dialect, batches,
//! doubts and repairs, deadlines, absent keys), the standby of the other direction, holds over all cores, the exchange, the move of blocked clients, the
//! comparison of clients' reads. Its connections are streams in memory (`follow::redis::network::testing`), its wall clock is the
//! simulation's.
//!
//! **What is modelled:** the servers ([`model`]), the network ([`net`], [`stream`]), the event loops of the cores ([`core`]) and the part of
//! control that makes a flip ([`control`]: the record, plans and acknowledgements, in the order of `control::reconcile::flip`). The lane, TLS, ACLs,
//! policies and subscriptions are not simulated.
//!
//! What must hold is in [`checks`] and [`waiting`], what can be left out to see that the checks notice in [`ablations`], every number in [`limits`].

#[cfg(test)]
mod ablations;
#[cfg(test)]
mod checks;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod control;
#[cfg(test)]
mod core;
#[cfg(test)]
mod history;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod model;
#[cfg(test)]
mod net;
#[cfg(test)]
mod pipe;
#[cfg(test)]
mod random;
#[cfg(test)]
mod run;
#[cfg(test)]
mod stream;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod waiting;
#[cfg(test)]
mod world;
