//! Scenario files: what is claimed, and the loads and contestants that show it. Pure: text to values.
//!
//! `loadtest/scenarios/loads.toml` names every load once; each other file there is one row of the target table. Loads that several rows
//! need are measured once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

/// One way of loading a server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Load {
    /// redis-benchmark, closed loop.
    RedisBenchmark {
        test: String,
        clients: u32,
        pipeline: u32,
        value_bytes: usize,
        keys: u64,
        requests: u64,
        requests_quick: u64,
    },
    /// loadgen at a share of the throughput that direct reaches in a closed loop with as many connections.
    OpenLoop {
        share_of_direct: f64,
        connections: u32,
        value_bytes: usize,
        keys: u64,
        read_share: f64,
        seconds: f64,
        seconds_quick: f64,
    },
    /// loadgen --find-knee.
    Knee {
        p99_bound_us: f64,
        start: f64,
        connections: u32,
        value_bytes: usize,
        keys: u64,
        read_share: f64,
        seconds: f64,
    },
    /// loadgen --idle, and what the process grew by.
    Idle { connections: usize },
    /// A migration's first pass over a source that nobody uses.
    Backfill { value_bytes: usize, keys: u64, keys_quick: u64 },
    /// Changes of authority, there and back, under loadgen at a fixed rate.
    Flips {
        per_second: f64,
        connections: u32,
        value_bytes: usize,
        keys: u64,
        read_share: f64,
        flips: u32,
        flips_quick: u32,
    },
    /// pgbench, closed loop.
    Pgbench { script: String, mode: String, clients: u32, seconds: u32, seconds_quick: u32 },
}

impl Load {
    /// Keys and bytes that must be on the Redis server beforehand.
    #[must_use]
    pub fn fill(&self) -> Option<(u64, usize)> {
        match self {
            Self::RedisBenchmark { keys, value_bytes, .. }
            | Self::OpenLoop { keys, value_bytes, .. }
            | Self::Knee { keys, value_bytes, .. } => Some((*keys, *value_bytes)),
            Self::Idle { .. } | Self::Backfill { .. } | Self::Flips { .. } | Self::Pgbench { .. } => None,
        }
    }

    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Pgbench { .. })
    }
}

/// How two measured values are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// `of` divided by `over`.
    Ratio,
    /// `of` less `over`.
    Difference,
    /// `of` alone.
    Value,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    pub words: String,
    pub load: String,
    pub metric: String,
    pub of: String,
    pub over: Option<String>,
    pub how: How,
    pub at_least: Option<f64>,
    pub at_most: Option<f64>,
}

/// One row of the target table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Of the file, without its extension.
    #[serde(skip)]
    pub name: String,
    pub row: String,
    #[serde(default)]
    pub contestants: Vec<String>,
    #[serde(default)]
    pub loads: Vec<String>,
    /// Each contestant is started for its turn and stopped after it, because it uses the processor even when idle.
    #[serde(default)]
    pub alone: bool,
    /// Left out of a quick run.
    #[serde(default)]
    pub full_only: bool,
    /// Why nothing can be measured; there are no loads then.
    pub not_measured: Option<String>,
    #[serde(default)]
    pub claim: Vec<Claim>,
}

/// Every contestant that exists.
pub const REDIS: [&str; 12] = [
    "direct",
    "crossfade",
    "crossfade-2-cores",
    "crossfade-no-policies",
    "crossfade-no-telemetry",
    "crossfade-dual",
    "crossfade-dual-lane",
    "crossfade-replica",
    "crossfade-migrating",
    "crossfade-migrating-lane",
    "haproxy",
    "nutcracker",
];
pub const POSTGRES: [&str; 5] = ["direct", "crossfade", "pgbouncer-session", "pgbouncer-transaction", "pgpool"];

/// All of `loadtest/scenarios`.
#[derive(Debug, Clone)]
pub struct Book {
    pub loads: BTreeMap<String, Load>,
    pub scenarios: Vec<Scenario>,
}

impl Book {
    /// Reads a directory.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        let entries = std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "toml") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                files.insert(name, text);
            }
        }
        Self::parse(files)
    }

    /// # Errors
    /// The file and what is wrong with it.
    pub fn parse(mut files: BTreeMap<String, String>) -> Result<Self, String> {
        let text = files.remove("loads").ok_or("there is no loads.toml")?;
        let loads: BTreeMap<String, Load> = toml::from_str(&text).map_err(|error| format!("loads.toml: {error}"))?;
        let mut scenarios = Vec::new();
        for (name, text) in files {
            let mut scenario: Scenario = toml::from_str(&text).map_err(|error| format!("{name}.toml: {error}"))?;
            scenario.name = name;
            check(&scenario, &loads).map_err(|error| format!("{}.toml: {error}", scenario.name))?;
            scenarios.push(scenario);
        }
        Ok(Self { loads, scenarios })
    }

    /// What has to be measured for these scenarios, every pair of load and contestant once.
    #[must_use]
    pub fn blocks<'a>(&self, scenarios: impl IntoIterator<Item = &'a Scenario>) -> Vec<Block> {
        let mut shared: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut blocks: Vec<Block> = Vec::new();
        for scenario in scenarios {
            if scenario.alone {
                let (loads, contestants) = (scenario.loads.clone(), scenario.contestants.clone());
                match blocks.iter_mut().find(|block| block.loads == loads) {
                    Some(same) => same.contestants.extend(
                        contestants.into_iter().filter(|name| !same.contestants.contains(name)).collect::<Vec<_>>(),
                    ),
                    None => blocks.push(Block { alone: true, loads, contestants }),
                }
            } else {
                for load in &scenario.loads {
                    shared.entry(load.clone()).or_default().extend(scenario.contestants.iter().cloned());
                }
            }
        }
        let order = |names: BTreeSet<String>| -> Vec<String> {
            let known = REDIS.iter().chain(&POSTGRES[2..]);
            known.filter(|name| names.contains(**name)).map(|name| (*name).to_owned()).collect()
        };
        let shared = shared.into_iter().map(|(load, contestants)| Block {
            alone: false,
            loads: vec![load],
            contestants: order(contestants),
        });
        shared.chain(blocks).collect()
    }
}

/// Loads and contestants that are measured in turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub alone: bool,
    pub loads: Vec<String>,
    pub contestants: Vec<String>,
}

fn check(scenario: &Scenario, loads: &BTreeMap<String, Load>) -> Result<(), String> {
    if scenario.not_measured.is_some() {
        let nothing = scenario.loads.is_empty() && scenario.claim.is_empty();
        return if nothing { Ok(()) } else { Err("not_measured has neither loads nor claims".to_owned()) };
    }
    if scenario.loads.is_empty() || scenario.contestants.is_empty() {
        return Err("no loads or no contestants".to_owned());
    }
    for name in &scenario.loads {
        let load = loads.get(name).ok_or_else(|| format!("no load {name} in loads.toml"))?;
        let known: &[&str] = if load.is_postgres() { &POSTGRES } else { &REDIS };
        if let Some(stranger) = scenario.contestants.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("no contestant {stranger} for {name}"));
        }
    }
    for claim in &scenario.claim {
        let here = |list: &[String], name: &String| list.contains(name);
        if !here(&scenario.loads, &claim.load) || !here(&scenario.contestants, &claim.of) {
            return Err(format!("{:?} is about what is not measured here", claim.words));
        }
        match (claim.how, &claim.over) {
            (How::Value, None) => {}
            (How::Ratio | How::Difference, Some(over)) if here(&scenario.contestants, over) => {}
            _ => return Err(format!("{:?}: `over` and `how` do not fit", claim.words)),
        }
        if claim.at_least.is_some() == claim.at_most.is_some() {
            return Err(format!("{:?} needs at_least or at_most", claim.words));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOADS: &str = "[get]\nkind = \"redis-benchmark\"\ntest = \"get\"\nclients = 50\npipeline = 1\nvalue_bytes = 64\nkeys = 10\n\
        requests = 100\nrequests_quick = 10\n[idle]\nkind = \"idle\"\nconnections = 5\n";
    const ROW: &str = "row = \"as fast\"\ncontestants = [\"direct\", \"crossfade\"]\nloads = [\"get\"]\n\
        [[claim]]\nwords = \"GET\"\nload = \"get\"\nmetric = \"per_s\"\nof = \"crossfade\"\nover = \"direct\"\nhow = \"ratio\"\nat_least = 1.0\n";

    fn book(files: &[(&str, &str)]) -> Result<Book, String> {
        let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        Book::parse(files.iter().map(own).collect())
    }

    #[test]
    fn the_repositorys_own_scenarios_are_sound_and_name_every_row_once() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let book = Book::read(&directory).unwrap();
        assert!(book.scenarios.len() > 10, "{}", book.scenarios.len());
        let used: BTreeSet<&String> = book.scenarios.iter().flat_map(|scenario| &scenario.loads).collect();
        let unused: Vec<&String> = book.loads.keys().filter(|name| !used.contains(name)).collect();
        assert!(unused.is_empty(), "loads that no scenario uses: {unused:?}");
        let rows: BTreeSet<&str> = book.scenarios.iter().map(|scenario| scenario.row.as_str()).collect();
        assert_eq!(rows.len(), book.scenarios.len(), "a row is listed twice");
    }

    #[test]
    fn a_load_that_two_rows_need_is_measured_once_with_all_their_contestants() {
        let second = ROW.replace("\"crossfade\"]", "\"crossfade\", \"haproxy\"]").replace("as fast", "cheaper");
        let book = book(&[("loads", LOADS), ("a", ROW), ("b", &second)]).unwrap();
        let blocks = book.blocks(&book.scenarios);
        let expected = ["direct", "crossfade", "haproxy"].map(str::to_owned).to_vec();
        assert_eq!(blocks, [Block { alone: false, loads: vec!["get".to_owned()], contestants: expected }]);
    }

    #[test]
    fn errors_name_the_file() {
        for (from, to, word) in [
            ("\"get\"]", "\"put\"]", "no load put"),
            ("\"direct\", ", "\"redis\", ", "no contestant redis"),
            ("of = \"crossfade\"", "of = \"haproxy\"", "not measured here"),
            ("over = \"direct\"\n", "", "do not fit"),
            ("at_least = 1.0\n", "", "at_least or at_most"),
            ("row =", "rows =", "rows"),
        ] {
            let error = book(&[("loads", LOADS), ("a", &ROW.replace(from, to))]).unwrap_err();
            assert!(error.starts_with("a.toml: ") && error.contains(word), "{to}: {error}");
        }
        assert!(book(&[("a", ROW)]).unwrap_err().contains("loads.toml"));
    }
}
