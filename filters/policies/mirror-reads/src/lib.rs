//! The default mirror policy: reads go to the shadow too and their replies are compared; everything else is only forwarded.
//!
//! Writes reach the shadow by the lane or the copy, never by this policy. Settings: `sample_percent` (100) of the reads;
//! `commands_never` are not mirrored, whatever they are.

#![no_std]

use crossfade_policy::{
    Class, Config, Names, Policy, RequestVerdict, RequestView, Text, export_policy, forward, mirror_compare,
};

struct MirrorReads {
    never: Names<2048>,
    sample: Sample,
}

enum Sample {
    None,
    All,
    /// A read is mirrored when its sample is below this.
    Below(u32),
}

impl Policy for MirrorReads {
    fn configure(config: &Config<'_>) -> Result<Self, Text> {
        config.only(&["sample_percent", "commands_never"])?;
        let mut never = Names::new();
        config.texts("commands_never", |command| never.insert(command.bytes()))?;
        let percent = config.number("sample_percent", 100.0, 0.0, 100.0)?;
        let sample = match percent {
            0.0 => Sample::None,
            100.0 => Sample::All,
            part => Sample::Below((part / 100.0 * 4_294_967_296.0) as u32),
        };
        Ok(MirrorReads { never, sample })
    }

    /// A sampled answer is not remembered: the next command has a sample of its own.
    #[inline]
    fn on_request(&mut self, request: &RequestView<'_>) -> RequestVerdict {
        if request.class() != Some(Class::Read) || self.never.contains(request.command()) {
            return forward().for_command();
        }
        match self.sample {
            Sample::All => mirror_compare().for_command(),
            Sample::None => forward().for_command(),
            Sample::Below(limit) if request.sample() < limit => mirror_compare(),
            Sample::Below(_) => forward(),
        }
    }
}

export_policy!(MirrorReads: on_request);
