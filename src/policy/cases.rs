//! Recorded cases: section 9 of `filters/ABI.md`. Each line is one case: the input of a filter, and the answer its author expects.
//!
//! Blocks for as long as the calls take; runs on the thread that loads modules.

mod fields;
mod view;

use serde_json::Value;

use self::fields::Fields;
use self::view::View;
use super::abi;
use super::host::{FaultKind, Instance, Module, RawVerdict};
use abi::{Hook, Memo, PairAction, RecordAction, RequestAction, WindowAction};
use base::model::limits;

/// Cases by name, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CasesReport {
    pub passed: Vec<String>,
    /// Name of the case, and the reason.
    pub failed: Vec<(String, String)>,
}

/// Runs every case, each on an instance of its own.
///
/// # Errors
/// The first line that is not a case, with its number, the case's name and the field. No case has run then.
pub fn run(module: &Module, cases: &str) -> Result<CasesReport, String> {
    let mut report = CasesReport::default();
    for case in read(cases)? {
        match case.run(module) {
            Ok(()) => report.passed.push(case.name),
            Err(why) => report.failed.push((case.name, why)),
        }
    }
    Ok(report)
}

#[derive(Debug)]
struct Case {
    name: String,
    configure: String,
    now_ms: i64,
    wanted: Wanted,
}

#[derive(Debug)]
enum Wanted {
    /// `cf_configure` refuses, with a reason that contains this text.
    ConfigureError(String),
    Steps(Vec<Step>),
}

#[derive(Debug)]
struct Step {
    repeat: u64,
    hook: Hook,
    view: View,
    expect: Expect,
}

#[derive(Debug)]
struct Expect {
    /// The word of an action or of a fault.
    verdict: String,
    memo: &'static str,
    prefix: Option<u64>,
    text: Option<String>,
    text_contains: Option<String>,
    replacement: Option<Vec<u8>>,
    counters: Vec<(String, u64)>,
}

fn read(cases: &str) -> Result<Vec<Case>, String> {
    let mut read = Vec::new();
    for (at, line) in cases.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("//") {
            continue;
        }
        let number = at + 1;
        let value: Value = serde_json::from_str(line).map_err(|error| format!("line {number}: not JSON: {error}"))?;
        let mut fields = Fields::of(value, "").map_err(|_| format!("line {number}: a case is a JSON object"))?;
        let name = fields.text("case").map_err(|why| format!("line {number}: {why}"))?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| format!("line {number}: case: every case needs a name"))?;
        read.push(case(name.clone(), fields).map_err(|why| format!("line {number}: case {name:?}: {why}"))?);
    }
    Ok(read)
}

fn case(name: String, mut fields: Fields) -> Result<Case, String> {
    let configure = match fields.take("configure") {
        None => "{}".to_owned(),
        Some(settings @ Value::Object(_)) => settings.to_string(),
        Some(_) => return Err("configure: an object is needed".to_owned()),
    };
    let now_ms = fields.signed("now_ms", 0)?;
    let refusal = fields.text("expect_configure_error")?;
    let wanted = match refusal {
        Some(reason) => {
            fields.end()?;
            Wanted::ConfigureError(reason)
        }
        None if fields.has("steps") => {
            let list = fields.list("steps")?;
            fields.end()?;
            let steps = list.into_iter().enumerate().map(|(at, value)| {
                let place = format!("steps[{at}]");
                step(Fields::of(value, &place)?)
            });
            Wanted::Steps(steps.collect::<Result<_, String>>()?)
        }
        None => Wanted::Steps(vec![step(fields)?]),
    };
    Ok(Case { name, configure, now_ms, wanted })
}

fn step(mut fields: Fields) -> Result<Step, String> {
    let repeat = fields.number("repeat", 1)?;
    if !(1..=limits::POLICY_CASE_REPEAT_MAX).contains(&repeat) {
        let most = limits::POLICY_CASE_REPEAT_MAX;
        return Err(format!("{}: 1 to {most} times, not {repeat}", fields.named("repeat")));
    }
    let words: Vec<(&str, u8)> = Hook::ALL.iter().map(|hook| (hook.word(), hook.code())).collect();
    if !fields.has("hook") {
        return Err(format!("{}: the hook that is called is missing", fields.named("hook")));
    }
    let place = fields.named("hook");
    let hook = Hook::from_code(fields.code("hook", 0, &words)?).ok_or_else(|| format!("{place}: no hook"))?;
    let view = view::view(hook, fields.object("view")?)?;
    if !fields.has("expect") {
        return Err(format!("{}: what the verdict must be is missing", fields.named("expect")));
    }
    let expect = expect(hook, fields.object("expect")?)?;
    fields.end()?;
    Ok(Step { repeat, hook, view, expect })
}

fn verdict_words(hook: Hook) -> Vec<&'static str> {
    let mut words: Vec<&'static str> = match hook {
        Hook::Request => RequestAction::ALL.iter().map(|action| action.word()).collect(),
        Hook::Pair => PairAction::ALL.iter().map(|action| action.word()).collect(),
        Hook::Window => WindowAction::ALL.iter().map(|action| action.word()).collect(),
        Hook::Record => RecordAction::ALL.iter().map(|action| action.word()).collect(),
    };
    words.extend(["fault:trap", "fault:bad_verdict"]);
    words
}

fn expect(hook: Hook, mut fields: Fields) -> Result<Expect, String> {
    let verdict = fields.text("verdict")?;
    let known = verdict_words(hook);
    let verdict = verdict
        .filter(|word| known.contains(&word.as_str()))
        .ok_or_else(|| format!("{}: one of {} is needed", fields.named("verdict"), known.join(", ")))?;
    const MEMOS: &[&str] = &["none", "command", "key_prefix"];
    let memo = fields.text("memo")?.unwrap_or_else(|| "none".to_owned());
    let memo = MEMOS
        .iter()
        .find(|known| **known == memo)
        .ok_or_else(|| format!("{}: {memo:?} is not one of {}", fields.named("memo"), MEMOS.join(", ")))?;
    let prefix = match fields.has("prefix") {
        true => Some(fields.number("prefix", 0)?),
        false => None,
    };
    let text = fields.text("text")?;
    let text_contains = fields.text("text_contains")?;
    let replacement = match fields.has("replacement") {
        true => Some(fields.bytes("replacement", b"")?),
        false => None,
    };
    let mut counters = Vec::new();
    if fields.has("counters") {
        let place = fields.named("counters");
        let Some(Value::Object(values)) = fields.take("counters") else {
            return Err(format!("{place}: an object of counters and their values is needed"));
        };
        for (id, value) in values {
            let value = value.as_u64().ok_or_else(|| format!("{place}.{id}: a whole number from 0 is needed"))?;
            counters.push((id, value));
        }
    }
    fields.end()?;
    Ok(Expect { verdict, memo, prefix, text, text_contains, replacement, counters })
}

impl Case {
    fn run(&self, module: &Module) -> Result<(), String> {
        let made = module.instantiate_for_case(&self.configure, self.now_ms);
        match (&self.wanted, made) {
            (Wanted::ConfigureError(part), Err(refused)) if refused.rule == "configure" => {
                if refused.text.contains(part) {
                    return Ok(());
                }
                Err(format!("refused with {:?}, which does not contain {part:?}", refused.text))
            }
            (_, Err(refused)) => Err(format!("no instance: {}: {}", refused.rule, refused.text)),
            (Wanted::ConfigureError(_), Ok(_)) => Err("the configuration was accepted".to_owned()),
            (Wanted::Steps(steps), Ok(mut instance)) => {
                for (at, step) in steps.iter().enumerate() {
                    step.run(&mut instance, self.now_ms).map_err(|why| match steps.len() {
                        1 => why,
                        _ => format!("step {}: {why}", at + 1),
                    })?;
                }
                Ok(())
            }
        }
    }
}

impl Step {
    fn run(&self, instance: &mut Instance, now_ms: i64) -> Result<(), String> {
        let frames = self.view.frames();
        for time in 1..=self.repeat {
            let named = |why: String| if self.repeat > 1 { format!("time {time}: {why}") } else { why };
            if !instance.has_hook(self.hook) {
                return Err(format!("the policy has no hook for {}", self.hook.word()));
            }
            if instance.is_spent() {
                return Err(named("the instance was discarded after the previous fault".to_owned()));
            }
            if self.view.bytes.len() > instance.buffer_length() {
                let (bytes, room) = (self.view.bytes.len(), instance.buffer_length());
                return Err(format!("view: it has {bytes} bytes, and the policy's buffer {room}"));
            }
            let (said, why) = match instance.call_for_case(self.hook, &self.view.bytes, &frames, now_ms) {
                Ok(said) => (said, String::new()),
                Err(fault) => (fault_verdict(fault.kind), format!(" ({})", fault.text)),
            };
            let wrong = self.expect.differences(&said, &why);
            if !wrong.is_empty() {
                return Err(named(wrong.join("; ")));
            }
        }
        self.expect.counter_differences(&instance.stats().counters)
    }
}

fn fault_verdict(kind: FaultKind) -> RawVerdict {
    let word = match kind {
        FaultKind::Trap => "fault:trap",
        FaultKind::Deadline => "fault:deadline",
        FaultKind::BadVerdict => "fault:bad_verdict",
    };
    RawVerdict { word, memo: Memo::None, text: Vec::new() }
}

impl Expect {
    /// One sentence for each difference from what is expected.
    fn differences(&self, said: &RawVerdict, why: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&said.text);
        let mut wrong = Vec::new();
        if said.word != self.verdict {
            let with = if text.is_empty() { why.to_owned() } else { format!(" ({text:?})") };
            wrong.push(format!("verdict {}{with}, expected {}", said.word, self.verdict));
        }
        let (memo, prefix) = match said.memo {
            Memo::None => ("none", 0),
            Memo::Command => ("command", 0),
            Memo::KeyPrefix(length) => ("key_prefix", u64::from(length)),
        };
        if memo != self.memo {
            wrong.push(format!("memo {memo}, expected {}", self.memo));
        }
        if let Some(expected) = self.prefix.filter(|expected| *expected != prefix) {
            wrong.push(format!("prefix {prefix}, expected {expected}"));
        }
        if let Some(expected) = self.text.as_ref().filter(|expected| **expected != text) {
            wrong.push(format!("text {text:?}, expected {expected:?}"));
        }
        if let Some(part) = self.text_contains.as_ref().filter(|part| !text.contains(part.as_str())) {
            wrong.push(format!("text {text:?} does not contain {part:?}"));
        }
        if let Some(expected) = self.replacement.as_ref().filter(|expected| **expected != said.text) {
            let expected = String::from_utf8_lossy(expected);
            wrong.push(format!("replacement {text:?}, expected {expected:?}"));
        }
        wrong
    }

    fn counter_differences(&self, counters: &[(String, u64)]) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (id, expected) in &self.counters {
            match counters.iter().find(|(known, _)| known == id) {
                Some((_, value)) if value == expected => {}
                Some((_, value)) => wrong.push(format!("counter {id} is {value}, expected {expected}")),
                None => wrong.push(format!("counter {id} is not there, expected {expected}")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

#[cfg(test)]
mod tests;
