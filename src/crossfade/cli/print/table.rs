//! What all tables share: the layout, yes and no, and findings.

use std::io::IsTerminal;

use comfy_table::{ContentArrangement, Table, presets};

use control::api::types::Finding;

/// Characters of a table that is not written to a terminal.
const PIPED_WIDTH: u16 = 160;

pub fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_width(PIPED_WIDTH);
    }
    table.set_header(heads);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

pub fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

pub fn findings(findings: &[Finding]) -> String {
    let row = |finding: &Finding| {
        [finding.name.clone(), finding.severity.clone(), yes(finding.waived), finding.detail.clone()]
    };
    table(["finding", "severity", "waived", "detail"], findings.iter().map(row))
}
