//! What a call of a filter costs.
