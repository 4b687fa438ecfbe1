//! One `[interlays.NAME.policies]` table: which filter is in which slot. Files are only located here; control loads them.

use std::path::PathBuf;

use serde_json::{Map, Number, Value};
use toml::de::DeValue;

use super::keys;
use super::reader::{ConfigError, Item, Place, Section};
use super::values::read_file;
use base::model::{FilterName, OnFault, PolicyChoice, PolicyMode, PolicySetting, PolicySettings, PolicySlot, limits};

/// A filter that is loaded at start from a file, under the name of the file's stem.
#[derive(Debug, Clone)]
pub struct FilterFile {
    pub name: FilterName,
    /// Relative paths are relative to the working directory.
    pub path: PathBuf,
    pub place: Place,
}

/// The policies of one interlay as the file defines them.
#[derive(Debug, Clone, Default)]
pub struct InterlayPolicies {
    pub settings: PolicySettings,
    pub files: Vec<FilterFile>,
    /// The place of each choice in the file.
    pub places: Vec<(PolicySlot, Place)>,
}

pub fn read(section: &Section<'_>) -> Result<InterlayPolicies, ConfigError> {
    section.only(keys::POLICIES)?;
    let mut policies = InterlayPolicies::default();
    for &slot in PolicySlot::ALL {
        let Some(item) = section.get(slot.as_str()) else { continue };
        let choice = read_choice(&item, &mut policies.files)?;
        policies.settings.set(slot, Some(choice));
        policies.places.push((slot, item.place()));
    }
    Ok(policies)
}

/// Two interlays may name the same file; two files must not have the same name.
pub fn one_file_for_each_name<'a>(interlays: impl Iterator<Item = &'a InterlayPolicies>) -> Result<(), ConfigError> {
    let files: Vec<_> = interlays.flat_map(|policies| &policies.files).collect();
    for (index, file) in files.iter().enumerate() {
        if let Some(other) = files[..index].iter().find(|other| other.name == file.name && other.path != file.path) {
            return Err(file.place.error(format!(
                "would load {} under the name {}, as {} is: rename one of the files",
                file.path.display(),
                file.name,
                other.path.display()
            )));
        }
    }
    Ok(())
}

fn read_choice(item: &Item<'_>, files: &mut Vec<FilterFile>) -> Result<PolicyChoice, ConfigError> {
    if matches!(item.value(), DeValue::String(_)) {
        let name = read_filter(item, files)?;
        return Ok(name.map_or(PolicyChoice::Nobody, |name| PolicyChoice::Filter(PolicySetting::of(name))));
    }
    let DeValue::Table(_) = item.value() else {
        return Err(item.error(
            "must name a filter: write \"builtin:NAME\", a path, the name of a loaded filter or \"none\"; or a table { filter = ..., \
             mode = ..., on_fault = ..., config = {...} }",
        ));
    };
    let table = item.section()?;
    table.only(keys::POLICY)?;
    let Some(name) = read_filter(&table.need("filter", "\"builtin:NAME\"")?, files)? else {
        let others = ["mode", "on_fault", "config"];
        return match others.into_iter().find_map(|key| table.get(key)) {
            Some(other) => Err(other.error("has no meaning where the filter is \"none\": remove it")),
            None => Ok(PolicyChoice::Nobody),
        };
    };
    let mut setting = PolicySetting::of(name);
    if let Some(item) = table.get("mode") {
        setting.mode = PolicyMode::parse(item.text()?).map_err(|error| item.error(error.to_string()))?;
    }
    if let Some(item) = table.get("on_fault") {
        setting.on_fault = OnFault::parse(item.text()?).map_err(|error| item.error(error.to_string()))?;
    }
    if let Some(item) = table.get("config") {
        item.section()?;
        setting.config = json(&item, item.value(), 0)?.to_string();
    }
    Ok(PolicyChoice::Filter(setting))
}

/// `None`: no filter, the built-in default decides.
fn read_filter(item: &Item<'_>, files: &mut Vec<FilterFile>) -> Result<Option<FilterName>, ConfigError> {
    let text = item.text()?;
    if text == PolicyChoice::NOBODY {
        return Ok(None);
    }
    let is_path = text.contains('/') || [".wasm", ".wat"].iter().any(|end| text.ends_with(end));
    if !is_path {
        return FilterName::new(text).map(Some).map_err(|error| item.error(error.to_string()));
    }
    let path = read_file(item)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = FilterName::new(&stem).ok().filter(|name| !name.is_builtin()).ok_or_else(|| {
        item.error(format!(
            "names the file {}, whose stem {stem:?} cannot be a filter's name: rename it to letters, digits, '-', '_' and '.'",
            path.display()
        ))
    })?;
    files.push(FilterFile { name: name.clone(), path, place: item.place() });
    Ok(Some(name))
}

/// The configuration for a filter's `cf_configure`. A date becomes text, because JSON has no dates.
fn json(item: &Item<'_>, value: &DeValue<'_>, depth: usize) -> Result<Value, ConfigError> {
    if depth > limits::FILTER_CONFIG_DEPTH_MAX {
        return Err(item.error(format!("is nested deeper than {} levels", limits::FILTER_CONFIG_DEPTH_MAX)));
    }
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(int) => {
            let number = i64::from_str_radix(int.as_str(), int.radix());
            Value::Number(
                number.map(Number::from).map_err(|_| item.error("has a whole number that does not fit 64 bits"))?,
            )
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(Number::from_f64);
            Value::Number(
                number.ok_or_else(|| item.error("has a number that JSON cannot represent: use no nan and no inf"))?,
            )
        }
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(at) => Value::String(at.to_string()),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|one| json(item, one.get_ref(), depth + 1)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Ok((key.to_string(), json(item, value.get_ref(), depth + 1)?))
            };
            Value::Object(table.iter().map(entry).collect::<Result<Map<_, _>, ConfigError>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    const BASE: &str = "[endpoints.old]\nkind = \"redis\"\nurl = \"redis://u:hunter2@127.0.0.1:6379\"\n\
                        [interlays.orders]\nkind = \"redis\"\nlisten = \"127.0.0.1:6390\"\nsource = \"old\"\n\
                        [interlays.orders.policies]\n";

    fn parse(policies: &str) -> Result<Config, String> {
        Config::parse(Path::new("x.toml"), &format!("{BASE}{policies}")).map_err(|error| error.to_string())
    }

    fn dist(name: &str) -> String {
        format!("{}/../../filters/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn every_form_of_a_policy_is_read() {
        let path = dist("deny_dangerous");
        let config = parse(&format!(
            "mirror = {{ filter = {path:?}, mode = \"block\", on_fault = \"fail_closed\", config = {{ commands = [\"FLUSHALL\"], \
             only_in_migration = true, deep = {{ n = 0x10, f = 0.5, at = 1979-05-27 }} }} }}\n\
             compare = \"none\"\nrollback = \"builtin:rollback-threshold\"\nrecords = \"mine\"\n"
        ))
        .unwrap();
        let settings = &config.interlays[0].policies.settings;
        let Some(PolicyChoice::Filter(mirror)) = settings.get(PolicySlot::Mirror) else { panic!("{settings:?}") };
        assert_eq!((mirror.filter.as_str(), mirror.mode), ("deny_dangerous", PolicyMode::Block));
        assert_eq!(mirror.on_fault, OnFault::FailClosed);
        let given: Value = serde_json::from_str(&mirror.config).unwrap();
        let expected = serde_json::json!({"commands": ["FLUSHALL"], "only_in_migration": true, "deep": {"n": 16, "f": 0.5, "at": "1979-05-27"}});
        assert_eq!(given, expected);
        assert_eq!(settings.get(PolicySlot::Compare), Some(&PolicyChoice::Nobody));
        let name = |slot| match settings.get(slot) {
            Some(PolicyChoice::Filter(setting)) => setting.filter.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(name(PolicySlot::Rollback), "builtin:rollback-threshold");
        assert_eq!(name(PolicySlot::Records), "mine");
        let files: Vec<_> = config.filter_files().iter().map(|file| file.path.clone()).collect();
        assert_eq!(files, [PathBuf::from(path)]);
    }

    #[test]
    fn what_is_wrong_names_line_key_and_fix() {
        let nan = "mirror = { filter = \"a\", config = { x = nan } }\n";
        let cases = [
            ("miror = \"none\"\n", "miror", "did you mean \"mirror\""),
            ("mirror = 7\n", "mirror", "must name a filter"),
            ("mirror = \"other:x\"\n", "mirror", "not a valid name"),
            ("mirror = \"nowhere/x.wasm\"\n", "mirror", "names the file nowhere/x.wasm"),
            ("mirror = { mode = \"warn\" }\n", "mirror", "\"filter\" is missing"),
            ("mirror = { filter = \"a\", mod = \"warn\" }\n", "mirror.mod", "did you mean \"mode\""),
            ("mirror = { filter = \"a\", mode = \"refuse\" }\n", "mirror.mode", "observe, warn, block"),
            ("mirror = { filter = \"a\", on_fault = \"x\" }\n", "mirror.on_fault", "fail_open, fail_closed"),
            ("mirror = { filter = \"a\", config = \"{}\" }\n", "mirror.config", "must be a table"),
            ("mirror = { filter = \"none\", mode = \"warn\" }\n", "mirror.mode", "no meaning"),
            (nan, "mirror.config", "no nan"),
        ];
        for (text, key, words) in cases {
            let error = parse(text).map(drop).expect_err(text);
            let fits =
                error.starts_with(&format!("x.toml:9: interlays.orders.policies.{key}: ")) && error.contains(words);
            assert!(fits, "{error}\nexpected line 9, key {key}, words {words:?}");
            assert!(!error.contains("hunter2"), "the error shows the password: {error}");
        }
    }

    #[test]
    fn two_files_with_one_stem_are_refused_and_one_file_twice_is_not() {
        let twin = std::env::temp_dir().join(format!("crossfade-config-{}", std::process::id()));
        std::fs::create_dir_all(&twin).unwrap();
        let other = twin.join("deny_dangerous.wasm");
        std::fs::write(&other, b"").unwrap();
        let (path, other) = (dist("deny_dangerous"), other.display().to_string());
        let twice = parse(&format!("mirror = {path:?}\ncompare = {path:?}\n")).unwrap();
        assert_eq!(twice.filter_files().len(), 1);
        let error = parse(&format!("mirror = {path:?}\ncompare = {other:?}\n")).expect_err("two files");
        assert!(error.starts_with("x.toml:10: interlays.orders.policies.compare: "), "{error}");
        assert!(error.contains("under the name deny_dangerous") && error.contains("rename one"), "{error}");
        let _ = std::fs::remove_dir_all(twin);
    }

    #[test]
    fn an_interlay_without_migrations_has_no_policies() {
        let text = "[endpoints.old]\nkind = \"postgres\"\nurl = \"postgres://127.0.0.1:5432/shop\"\n\
                    [interlays.shop]\nkind = \"postgres\"\nlisten = \"127.0.0.1:6432\"\nsource = \"old\"\n\
                    auth = { mode = \"relay\" }\npolicies = { mirror = \"none\" }\n";
        let error = Config::parse(Path::new("x.toml"), text).expect_err("no migration yet").to_string();
        assert!(error.starts_with("x.toml:9: interlays.shop.policies: belongs to Redis interlays"), "{error}");
    }
}
