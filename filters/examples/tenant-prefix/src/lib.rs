//! Example: keys look like `TENANT:...`, and a command may touch one tenant only. Shows answers remembered by key prefix.
//!
//! Settings: `separator` (":"), one byte; `tenants`, those that are let through (absent: any). Reads are mirrored and compared.

#![no_std]

use crossfade_policy::{
    Class, Config, Names, Policy, RequestVerdict, RequestView, Text, export_policy, flags, forward, mirror_compare,
    refuse,
};

struct TenantPrefix {
    separator: u8,
    tenants: Names<4096>,
}

impl Policy for TenantPrefix {
    fn configure(config: &Config<'_>) -> Result<Self, Text> {
        config.only(&["separator", "tenants"])?;
        let mut tenants = Names::new();
        config.texts("tenants", |tenant| tenants.insert(tenant.bytes()))?;
        let separator = match config.text("separator")? {
            None => b':',
            Some(text) => {
                let mut bytes = text.bytes();
                match (bytes.next(), bytes.next()) {
                    (Some(one), None) => one,
                    _ => return Err("separator: one byte is needed".into()),
                }
            }
        };
        Ok(TenantPrefix { separator, tenants })
    }

    fn on_request(&mut self, request: &RequestView<'_>) -> RequestVerdict {
        let mut keys = request.keys();
        let Some(first) = keys.next() else {
            // A write without a key (FLUSHALL) touches every tenant.
            return match request.class() {
                Some(Class::Write) => refuse("a write must name the keys of one tenant"),
                _ => forward(),
            };
        };
        if request.has(flags::REQUEST_KEYS_CUT) {
            return refuse("too many keys to check the tenant of each");
        }
        let Some(end) = first.iter().position(|&byte| byte == self.separator) else {
            return refuse("a key must begin with its tenant");
        };
        let (tenant, prefix) = (&first[..end], &first[..=end]);
        if !keys.all(|key| key.starts_with(prefix)) {
            return refuse("one command, one tenant");
        }
        if !self.tenants.is_empty() && !self.tenants.contains(tenant) {
            return refuse(Text::new().with("unknown tenant ").with(&tenant[..tenant.len().min(64)]))
                .for_prefix(prefix.len());
        }
        let verdict = if request.class() == Some(Class::Read) { mirror_compare() } else { forward() };
        verdict.for_prefix(prefix.len())
    }
}

export_policy!(TenantPrefix: on_request);
