//! The report of a run: a table for people, JSON for machines. Pure. Complete: failures, absences and missed targets are included.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value as Json, json};

use crate::bench::claims::{Judged, Sample, Spread, Verdict, compare, series};
use crate::bench::scenario::How;

/// All of one run.
#[derive(Debug, Default)]
pub struct Run {
    pub machine: Json,
    /// The command line of this run, as typed.
    pub command: String,
    pub quick: bool,
    pub repetitions: u32,
    pub load_before: f64,
    pub load_after: f64,
    pub seconds: f64,
    /// The base of an open loop's rate: the rate of direct, and the command.
    pub rates: BTreeMap<String, (f64, String)>,
    /// Contestants that could not be started, and why.
    pub absent: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
    pub judged: Vec<Judged>,
}

/// Processes that waited for a processor before the run began; with more than this, the figures are those of a busy machine.
pub const LOAD_QUIET_MAX: f64 = 0.5;

/// A generator that hands requests over later than this does not measure tens of microseconds.
pub const LATE_US_MAX: f64 = 100.0;

/// The samples of one contestant under one load.
#[derive(Debug)]
pub struct Cell<'a> {
    pub load: &'a str,
    pub contestant: &'a str,
    pub alone: bool,
    pub metrics: BTreeMap<&'a str, Spread>,
    /// Throughput divided by that of the block's base, within repetitions; of the base itself `None`.
    pub ratio: Option<Spread>,
    pub failed: Option<&'a str>,
}

impl Cell<'_> {
    /// The load, and whether each contestant was started only for its turn.
    #[must_use]
    pub fn title(&self) -> String {
        if self.alone { format!("{} (one at a time)", self.load) } else { self.load.to_owned() }
    }
}

impl Run {
    /// In the order of measurement.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell<'_>> {
        let mut order: Vec<(&str, bool, &str)> = Vec::new();
        for sample in &self.samples {
            let key = (sample.load.as_str(), sample.alone, sample.contestant.as_str());
            if !order.contains(&key) {
                order.push(key);
            }
        }
        // By load, in which each first appears; within it as measured in the first repetition, the base first.
        let loads: Vec<(&str, bool)> = order.iter().map(|(load, alone, _)| (*load, *alone)).collect();
        order.sort_by_key(|(load, alone, contestant)| {
            (
                loads.iter().position(|known| known == &(*load, *alone)),
                Some(*contestant) != self.base(load, *alone),
                *contestant,
            )
        });
        order.into_iter().map(|(load, alone, contestant)| self.cell(load, alone, contestant)).collect()
    }

    /// The base of the ratios: direct, or pass-through where direct was not measured.
    #[must_use]
    pub fn base(&self, load: &str, alone: bool) -> Option<&'static str> {
        let there = |name: &str| {
            self.samples.iter().any(|sample| {
                sample.load == load
                    && sample.alone == alone
                    && sample.contestant == name
                    && sample.metrics.contains_key("per_s")
            })
        };
        ["direct", "crossfade"].into_iter().find(|name| there(name))
    }

    fn cell<'a>(&'a self, load: &'a str, alone: bool, contestant: &'a str) -> Cell<'a> {
        let ours =
            || self.samples.iter().filter(move |s| s.load == load && s.alone == alone && s.contestant == contestant);
        let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, value) in ours().flat_map(|sample| &sample.metrics) {
            values.entry(name).or_default().push(*value);
        }
        let per_s = |who: &str| series(&self.samples, load, who, alone, "per_s");
        let base = self.base(load, alone).filter(|base| *base != contestant);
        Cell {
            load,
            contestant,
            alone,
            metrics: values.into_iter().filter_map(|(name, values)| Some((name, Spread::of(&values)?))).collect(),
            ratio: base.and_then(|base| Spread::of(&compare(How::Ratio, &per_s(contestant), &per_s(base)))),
            failed: ours().find_map(|sample| sample.failed.as_deref()),
        }
    }

    #[must_use]
    pub fn missed(&self) -> usize {
        self.judged.iter().filter(|judged| judged.verdict == Verdict::Missed).count()
    }

    #[must_use]
    pub fn json(&self) -> Json {
        let cells: Vec<Json> = self
            .cells()
            .into_iter()
            .map(|cell| {
                json!({
                    "load": cell.load, "contestant": cell.contestant, "alone": cell.alone, "metrics": cell.metrics,
                    "ratio_to_base": cell.ratio, "base": self.base(cell.load, cell.alone), "failed": cell.failed,
                })
            })
            .collect();
        json!({
            "version": 1, "kind": if self.quick { "quick" } else { "full" }, "machine": self.machine, "command": self.command,
            "repetitions": self.repetitions, "seconds": self.seconds.round(),
            "load_average": { "before": self.load_before, "after": self.load_after, "quiet": self.load_before <= LOAD_QUIET_MAX },
            "rates_of_direct": self.rates.iter().map(|(load, (rate, command))| json!({ "load": load, "per_s": rate, "command": command })).collect::<Vec<_>>(),
            "absent": self.absent, "claims": self.judged, "cells": cells, "samples": self.samples,
        })
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.heading(&mut out)
            .and_then(|()| self.measured(&mut out))
            .and_then(|()| self.claims(&mut out))
            .expect("a String takes all");
        out
    }

    fn heading(&self, out: &mut String) -> std::fmt::Result {
        let said = |name: &str| self.machine[name].as_str().unwrap_or("?").to_owned();
        writeln!(
            out,
            "{}  {}, {} cores, {}, {}",
            said("date"),
            said("processor"),
            self.machine["cores"],
            said("memory"),
            said("kernel")
        )?;
        for version in self.machine["versions"].as_object().into_iter().flat_map(|versions| versions.values()) {
            writeln!(out, "  {}", version.as_str().unwrap_or("?"))?;
        }
        writeln!(out, "{}   ({} repetitions, {:.0} s)", self.command, self.repetitions, self.seconds)?;
        if self.quick {
            writeln!(
                out,
                "A QUICK run: short measurements, few repetitions. It shows that everything works, not how fast it is."
            )?;
        }
        if self.load_before > LOAD_QUIET_MAX {
            writeln!(
                out,
                "*** THE MACHINE WAS BUSY: load average {} before the run. Do not quote these figures.",
                self.load_before
            )?;
        }
        let late =
            self.samples.iter().filter_map(|sample| sample.metrics.get("lateness_p99_us")).copied().fold(0.0, f64::max);
        if late > LATE_US_MAX {
            let of = figure(late);
            writeln!(
                out,
                "*** The load generator was up to {of} us late (p99): latencies contain its own wait for a processor."
            )?;
        }
        for (who, why) in &self.absent {
            writeln!(out, "*** {who} IS MISSING: {}", why.lines().next().unwrap_or_default())?;
        }
        Ok(())
    }

    fn measured(&self, out: &mut String) -> std::fmt::Result {
        let mut last = None;
        for cell in self.cells() {
            if last != Some((cell.load, cell.alone)) {
                last = Some((cell.load, cell.alone));
                let command =
                    self.samples.iter().find(|s| s.load == cell.load && s.alone == cell.alone && s.failed.is_none());
                let typed = command.map_or(String::new(), |sample| without_port(&sample.command));
                writeln!(out, "\n{}: {typed}", cell.title())?;
            }
            write!(out, "  {:<22}", cell.contestant)?;
            if let Some(why) = cell.failed {
                write!(out, "  FAILED: {}", why.lines().next().unwrap_or_default())?;
            }
            if let Some(per_s) = cell.metrics.get("per_s") {
                write!(out, "{:>10.0}/s", per_s.median)?;
            }
            if let Some(ratio) = cell.ratio {
                write!(out, "  x {:<5.3} ({:.3} to {:.3})", ratio.median, ratio.least, ratio.most)?;
            }
            for (name, spread) in
                cell.metrics.iter().filter(|(name, _)| !["per_s", "due_per_s", "unanswered"].contains(name))
            {
                write!(out, "  {name} {}", figure(spread.median))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn claims(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nTargets")?;
        let mut row = "";
        for judged in &self.judged {
            if row != judged.row {
                row = &judged.row;
                writeln!(out, "  {row}")?;
            }
            write!(out, "    {:<12} {:<64} {:>10}", judged.verdict.word(), judged.words, judged.target)?;
            match (&judged.measured, &judged.why) {
                (Some(of), _) => writeln!(
                    out,
                    "  measured {} ({} to {}, {} values)",
                    figure(of.median),
                    figure(of.least),
                    figure(of.most),
                    of.count
                )?,
                (None, Some(why)) => writeln!(out, "  {}", why.lines().next().unwrap_or_default())?,
                (None, None) => writeln!(out)?,
            }
        }
        let count = |verdict: Verdict| self.judged.iter().filter(|judged| judged.verdict == verdict).count();
        let (met, missed, rest) = (count(Verdict::Met), count(Verdict::Missed), count(Verdict::NotMeasured));
        writeln!(out, "\n{met} met, {missed} missed, {rest} not measured")
    }
}

/// Contestants differ in their port only; the JSON has each command as it was run.
fn without_port(command: &str) -> String {
    let mut words: Vec<&str> = command.split(' ').collect();
    for at in 1..words.len() {
        if matches!(words[at - 1], "-p" | "--port") {
            words[at] = "PORT";
        }
    }
    words.join(" ")
}

/// Three digits, or all of a large number.
#[must_use]
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    #[must_use]
    pub fn example() -> Run {
        let sample = |contestant: &str, repetition, per_s: f64| Sample {
            load: "get-64".to_owned(),
            contestant: contestant.to_owned(),
            alone: false,
            repetition,
            metrics: BTreeMap::from([("per_s".to_owned(), per_s), ("proxy_cpu_us".to_owned(), 5.5)]),
            command: "redis-benchmark -p 1 -c 50".to_owned(),
            curve: Some(json!([[0.0, 10.0, 1], [0.5, 20.0, 50], [1.0, 90.0, 100]])),
            failed: None,
        };
        let mut samples = vec![
            sample("crossfade", 0, 95.0),
            sample("direct", 0, 100.0),
            sample("crossfade", 1, 40.0),
            sample("direct", 1, 50.0),
        ];
        samples.push(Sample {
            metrics: BTreeMap::new(),
            failed: Some("it <died>".to_owned()),
            ..sample("haproxy", 0, 0.0)
        });
        let judged = Judged {
            scenario: "a".to_owned(),
            row: "GET & SET".to_owned(),
            words: "GET".to_owned(),
            load: "get-64".to_owned(),
            target: ">= 1".to_owned(),
            measured: Spread::of(&[0.95, 0.8]),
            verdict: Verdict::Missed,
            why: None,
        };
        Run { repetitions: 2, samples, judged: vec![judged], load_before: 9.0, ..Run::default() }
    }

    #[test]
    fn the_base_comes_first_and_ratios_are_paired() {
        let run = example();
        let cells = run.cells();
        let names: Vec<&str> = cells.iter().map(|cell| cell.contestant).collect();
        assert_eq!(names, ["direct", "crossfade", "haproxy"]);
        assert!(cells[0].ratio.is_none());
        let ratio = cells[1].ratio.unwrap();
        assert_eq!((ratio.least, ratio.most, ratio.count), (0.8, 0.95, 2));
        assert_eq!(cells[2].failed, Some("it <died>"));
    }

    #[test]
    fn problems_are_shown_prominently() {
        let text = example().text();
        for words in [
            "MISSED",
            "FAILED: it <died>",
            "THE MACHINE WAS BUSY",
            "0 met, 1 missed, 0 not measured",
            "redis-benchmark -p PORT -c 50",
        ] {
            assert!(text.contains(words), "{words} is not in:\n{text}");
        }
        let json = example().json();
        assert_eq!(
            (json["claims"][0]["verdict"].as_str(), json["load_average"]["quiet"].as_bool()),
            (Some("missed"), Some(false))
        );
        assert_eq!(json["samples"].as_array().unwrap().len(), 5);
    }
}
