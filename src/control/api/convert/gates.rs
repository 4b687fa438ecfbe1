//! One gate in its JSON form.

use crate::api::types as api;
use crate::reconcile::views;

pub fn gate(from: &views::Gate) -> api::Gate {
    api::Gate {
        name: from.name.to_owned(),
        measured: from.measured.clone(),
        threshold: from.threshold.clone(),
        met: from.met,
    }
}
