//! The shapes on disk of filters and of the policies chosen for a migration. Absent in files written before there were any.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::misread::{Misread, misread};
use crate::store::StoredFilter;
use base::model::{
    FilterName, OnFault, PolicyChoice, PolicyMode, PolicySetting, PolicySettings, PolicySlot, Timestamp,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct DiskChoice {
    /// `None`: no filter decides.
    filter: Option<String>,
    #[serde(default)]
    mode: String,
    #[serde(default)]
    on_fault: String,
    #[serde(default)]
    config: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct DiskPolicies {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirror: Option<DiskChoice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compare: Option<DiskChoice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollback: Option<DiskChoice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    records: Option<DiskChoice>,
}

impl From<&PolicyChoice> for DiskChoice {
    fn from(from: &PolicyChoice) -> Self {
        match from {
            PolicyChoice::Nobody => {
                Self { filter: None, mode: String::new(), on_fault: String::new(), config: String::new() }
            }
            PolicyChoice::Filter(setting) => Self {
                filter: Some(setting.filter.to_string()),
                mode: setting.mode.to_string(),
                on_fault: setting.on_fault.to_string(),
                config: setting.config.clone(),
            },
        }
    }
}

impl DiskChoice {
    fn read(self) -> Result<PolicyChoice, Misread> {
        let Some(filter) = self.filter else { return Ok(PolicyChoice::Nobody) };
        Ok(PolicyChoice::Filter(PolicySetting {
            filter: FilterName::new(&filter).map_err(misread)?,
            mode: PolicyMode::parse(&self.mode).map_err(misread)?,
            on_fault: OnFault::parse(&self.on_fault).map_err(misread)?,
            config: self.config,
        }))
    }
}

impl From<&PolicySettings> for DiskPolicies {
    fn from(from: &PolicySettings) -> Self {
        let choice = |slot| from.get(slot).map(DiskChoice::from);
        Self {
            mirror: choice(PolicySlot::Mirror),
            compare: choice(PolicySlot::Compare),
            rollback: choice(PolicySlot::Rollback),
            records: choice(PolicySlot::Records),
        }
    }
}

impl DiskPolicies {
    pub(super) fn read(self) -> Result<PolicySettings, Misread> {
        let choice = |from: Option<DiskChoice>| from.map(DiskChoice::read).transpose();
        Ok(PolicySettings {
            mirror: choice(self.mirror)?,
            compare: choice(self.compare)?,
            rollback: choice(self.rollback)?,
            records: choice(self.records)?,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DiskFilter {
    module_base64: String,
    #[serde(default)]
    cases: Option<String>,
    digest: String,
    loaded_at_ms: u64,
    /// What the operator called it.
    #[serde(default)]
    file: String,
}

impl From<&StoredFilter> for DiskFilter {
    fn from(from: &StoredFilter) -> Self {
        Self {
            module_base64: STANDARD.encode(&from.module),
            cases: from.cases.clone(),
            digest: from.digest.clone(),
            loaded_at_ms: from.loaded_at.0,
            file: from.file.clone(),
        }
    }
}

impl DiskFilter {
    pub(in crate::store) fn read(self, name: &str) -> Result<StoredFilter, Misread> {
        Ok(StoredFilter {
            name: FilterName::new(name).map_err(misread)?,
            module: STANDARD.decode(&self.module_base64).map_err(misread)?,
            cases: self.cases,
            digest: self.digest,
            loaded_at: Timestamp(self.loaded_at_ms),
            file: self.file,
        })
    }
}
