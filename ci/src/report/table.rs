// SPDX-License-Identifier: GPL-2.0
//! Rows and columns, on the screen and in a page.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// As [`table()`], for a page.
pub fn markdown(header: &[String], rows: &[Vec<String>], left: usize) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = (0..header.len()).map(|i| if i < left { "---" } else { "---:" }.to_owned());
    let rows = rows.iter().map(|row| line(row));
    line(header) + &line(&rule.collect::<Vec<_>>()) + &rows.collect::<String>()
}

/// The first `left` columns are text, the others numbers.
pub fn table(header: Vec<String>, rows: Vec<Vec<String>>, left: usize) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header).add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 3));
        if i >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .map(|l| format!("{}\n", l.trim_end()))
        .collect()
}
