// SPDX-License-Identifier: GPL-2.0
//! What a page and its free cost by the size of the burst, a panel for each machine.

use super::counts::Counted;
use crate::report::pictures::{Line, draw_by_burst};
use anyhow::Result;
use plotters::prelude::*;
use std::collections::BTreeMap;

const PANEL: (u32, u32) = (440, 300);

/// What is drawn of what was counted: API, place, and what both are called. Zeroing a page would be most of
/// `alloc_pages_nolock()`.
const LINES: &[(&str, &str, &str, RGBColor)] = &[
    ("nowait", "task", "GFP_NOWAIT", RGBColor(138, 143, 152)),
    (
        "no_locks",
        "task",
        "in a task, none registered",
        RGBColor(150, 80, 180),
    ),
    (
        "no_locks",
        "task_registered",
        "in a task, 64 registered",
        RGBColor(224, 130, 20),
    ),
    (
        "no_locks",
        "irqs_off",
        "interrupts off, 64 registered",
        RGBColor(40, 120, 208),
    ),
    (
        "no_locks",
        "nmi",
        "NMI, 64 registered",
        RGBColor(30, 140, 90),
    ),
];

/// Without bursts there is none.
pub fn draw(machines: &BTreeMap<&str, &Counted>) -> Result<Option<String>> {
    let panels: Vec<_> = machines
        .iter()
        .filter(|(_, counted)| !counted.bursts.is_empty())
        .collect();
    if panels.is_empty() {
        return Ok(None);
    }
    let columns = panels.len().min(2);
    let rows = panels.len().div_ceil(columns);
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    // A page may be dark, and the text is not.
    area.fill(&WHITE)?;
    for (panel, (name, counted)) in area.split_evenly((rows, columns)).iter().zip(panels) {
        let lines: Vec<Line> = LINES
            .iter()
            .map(|&(api, place, label, color)| Line {
                label: Some(label),
                color,
                width: 2,
                points: counted
                    .bursts
                    .iter()
                    .filter(|b| (&*b.api, &*b.place) == (api, place))
                    .map(|b| (f64::from(b.size), b.alloc + b.free))
                    .collect(),
            })
            .filter(|line| !line.points.is_empty())
            .collect();
        let costs = lines.iter().flat_map(|line| &line.points).map(|p| p.1);
        let top = 1.05 * costs.fold(1.0, f64::max);
        draw_by_burst(panel, name, "instructions a page and its free", top, &lines)?;
    }
    area.present()?;
    drop(area);
    Ok(Some(format!(
        "<!-- SPDX-License-Identifier: GPL-2.0 -->\n{text}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::bench::counts::Burst;

    #[test]
    fn each_machine_has_a_panel_and_each_line_its_name() {
        let burst = |size, place: &str| Burst {
            api: "no_locks".to_owned(),
            place: place.to_owned(),
            size,
            alloc: 300.0,
            free: 200.0,
        };
        let counted = Counted {
            bursts: [1, 2, 4].map(|n| burst(n, "irqs_off")).into(),
            ..Counted::default()
        };
        let machines = BTreeMap::from([("a-machine", &counted), ("b-machine", &counted)]);
        let picture = draw(&machines).unwrap().unwrap();
        for text in ["SPDX", "a-machine", "b-machine", "interrupts off"] {
            assert!(picture.contains(text), "{text}");
        }
        assert!(!picture.contains("NMI"));
        let none = Counted::default();
        assert_eq!(draw(&BTreeMap::from([("x", &none)])).unwrap(), None);
    }
}
