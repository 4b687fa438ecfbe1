//! The default comparison: replies that mean the same are equivalent though their bytes differ.
//!
//! Judges collections without order, floats, remaining times and errors; leaves everything else to the built-in comparison.
//! Settings: `float_tolerance` (1e-9, relative), `ttl_tolerance_ms` (1000), `error_class` (true: errors of one class are
//! equivalent whatever they say).

#![no_std]

mod items;

use crossfade_policy::{
    Config, Local, PairVerdict, PairView, Policy, Protocol, ReplyKind, RequestView, Text, builtin, divergent, equal,
    equivalent, export_policy, flags, ignore, parse_number,
};
use items::{Key, Split, Table, split};

struct CompareSemantic {
    float_tolerance: f64,
    ttl_tolerance_ms: u64,
    error_class: bool,
}

/// Where the items of both replies lie. Too large for the stack.
static TABLES: Local<(Table, Table)> = Local::new((Table::new(), Table::new()));

impl Policy for CompareSemantic {
    fn configure(config: &Config<'_>) -> Result<Self, Text> {
        config.only(&["float_tolerance", "ttl_tolerance_ms", "error_class"])?;
        Ok(CompareSemantic {
            float_tolerance: config.number("float_tolerance", 1e-9, 0.0, 1.0)?,
            ttl_tolerance_ms: config.number("ttl_tolerance_ms", 1000.0, 0.0, 86_400_000.0)? as u64,
            error_class: config.flag("error_class", true)?,
        })
    }

    fn on_pair(&mut self, pair: &PairView<'_>) -> PairVerdict {
        let (Some(request), source, target) = (pair.request(), pair.source(), pair.target()) else { return builtin() };
        let cut = pair.has(flags::PAIR_SOURCE_CUT | flags::PAIR_TARGET_CUT);
        if !cut && source.kind == target.kind && source.bytes == target.bytes {
            return equal();
        }
        if request.has(flags::REQUEST_NONDETERMINISTIC) || pair.has(flags::PAIR_RACED) {
            return ignore();
        }
        if source.kind == ReplyKind::Missing || target.kind == ReplyKind::Missing || cut {
            return builtin();
        }
        match (source.kind == ReplyKind::Error, target.kind == ReplyKind::Error) {
            (true, true) => return self.errors(&request, source.bytes, target.bytes),
            (true, false) | (false, true) => return divergent("error"),
            (false, false) => {}
        }
        if request.has(flags::REQUEST_TTL_SECONDS | flags::REQUEST_TTL_MILLIS) {
            return self.times(&request, source.bytes, target.bytes);
        }
        if request.has(flags::REQUEST_UNORDERED | flags::REQUEST_FLOATS) {
            return TABLES.with(|(left, right)| self.items(&request, source.bytes, target.bytes, left, right));
        }
        builtin()
    }
}

impl CompareSemantic {
    fn errors(&self, request: &RequestView<'_>, source: &[u8], target: &[u8]) -> PairVerdict {
        match (items::error_class(request.protocol(), source), items::error_class(request.protocol(), target)) {
            (Some(source), Some(target)) if source != target => divergent("error_class"),
            (Some(_), Some(_)) if self.error_class => equivalent(),
            _ => builtin(),
        }
    }

    /// Two remaining times differ by what passed between the two commands. Negative ones are codes and must be the same.
    fn times(&self, request: &RequestView<'_>, source: &[u8], target: &[u8]) -> PairVerdict {
        let (Some(source), Some(target)) = (items::integer(source), items::integer(target)) else { return builtin() };
        let unit = if request.has(flags::REQUEST_TTL_SECONDS) { 1000 } else { 1 };
        let apart = source.abs_diff(target).saturating_mul(unit);
        if source >= 0 && target >= 0 && apart <= self.ttl_tolerance_ms { equivalent() } else { divergent("ttl") }
    }

    fn items(
        &self,
        request: &RequestView<'_>,
        source: &[u8],
        target: &[u8],
        left: &mut Table,
        right: &mut Table,
    ) -> PairVerdict {
        let Some(protocol) = request.protocol() else { return builtin() };
        let (unordered, floats) = (request.has(flags::REQUEST_UNORDERED), request.has(flags::REQUEST_FLOATS));
        let how = if request.has(flags::REQUEST_FIELD_PAIRS) { Split::Pairs } else { Split::Single };
        if split(protocol, source, how, left).is_none() || split(protocol, target, how, right).is_none() {
            return builtin();
        }
        if left.units().len() != right.units().len() {
            return divergent("count");
        }
        if unordered {
            // The field of a pair is a name, and only the value beside it a number.
            let by = if floats && how == Split::Single { Key::Number } else { Key::Hash };
            left.sort(source, by);
            right.sort(target, by);
        }
        let same = left.units().iter().zip(right.units()).all(|(one, other)| {
            let ((one, more), (other, other_more)) = (one.parts(source), other.parts(target));
            self.same(protocol, one, other, floats) && self.same(protocol, more, other_more, floats)
        });
        match (same, unordered) {
            (true, _) => equivalent(),
            (false, true) => divergent("members"),
            (false, false) => divergent("value"),
        }
    }

    fn same(&self, protocol: Protocol, one: &[u8], other: &[u8], floats: bool) -> bool {
        if one == other {
            return true;
        }
        if !floats {
            return false;
        }
        if protocol != Protocol::Postgres {
            return self.close(one, other);
        }
        let (mut one, mut other) = (items::columns(one), items::columns(other));
        loop {
            match (one.next(), other.next()) {
                (None, None) => return true,
                (Some(one), Some(other)) if one == other => {}
                (Some(Some(one)), Some(Some(other))) if self.close(one, other) => {}
                _ => return false,
            }
        }
    }

    fn close(&self, one: &[u8], other: &[u8]) -> bool {
        let (Some(one), Some(other)) = (parse_number(one), parse_number(other)) else { return false };
        let size = if one.abs() > other.abs() { one.abs() } else { other.abs() };
        one == other || (one - other).abs() <= self.float_tolerance * size
    }
}

export_policy!(CompareSemantic: on_pair);
