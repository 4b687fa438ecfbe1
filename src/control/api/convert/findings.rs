//! One compatibility finding in its JSON form.

use crate::api::types as api;
use crate::reconcile::views;

pub fn finding(from: &views::Finding, waived: bool) -> api::Finding {
    api::Finding {
        name: from.name.clone(),
        severity: from.severity.as_str().to_owned(),
        detail: from.detail.clone(),
        waived,
    }
}
