// SPDX-License-Identifier: GPL-2.0
//! What a page and its free cost by the size of the burst, a panel for each machine.

use super::counts::{Burst, Counted};
use anyhow::Result;
use plotters::prelude::*;
use std::collections::BTreeMap;

const PANEL: (u32, u32) = (440, 300);

/// What is drawn of what was counted: API, place, and what both are called. Zeroing a page would be most of
/// `alloc_pages_nolock()`.
const LINES: &[(&str, &str, &str, RGBColor)] = &[
    ("nowait", "task", "GFP_NOWAIT", RGBColor(138, 143, 152)),
    ("no_locks", "task", "no user", RGBColor(150, 80, 180)),
    (
        "no_locks",
        "task_registered",
        "a user",
        RGBColor(224, 130, 20),
    ),
    (
        "no_locks",
        "irqs_off",
        "interrupts off",
        RGBColor(40, 120, 208),
    ),
    ("no_locks", "nmi", "NMI", RGBColor(30, 140, 90)),
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
        let cost = |b: &Burst| b.alloc + b.free;
        let shown = |b: &&Burst| LINES.iter().any(|l| (l.0, l.1) == (&*b.api, &*b.place));
        let shown = || counted.bursts.iter().filter(shown);
        let top = shown().map(cost).fold(1.0, f64::max);
        let largest = shown().map(|b| b.size).max().unwrap_or(2).max(2);
        let ticks: Vec<f64> = (0..=largest.ilog2()).map(|i| f64::from(1 << i)).collect();
        let x = (1.0..f64::from(largest)).log_scale().with_key_points(ticks);
        let mut chart = ChartBuilder::on(panel)
            .margin(8)
            .margin_right(22)
            .caption(name, ("sans-serif", 14))
            .x_label_area_size(34)
            .y_label_area_size(52)
            .build_cartesian_2d(x, 0.0..top * 1.05)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(128, 128, 128).mix(0.3))
            .y_labels(6)
            .x_desc("pages in the burst")
            .y_desc("instructions a page and its free")
            .x_label_formatter(&|x| format!("{x}"))
            .y_label_formatter(&|y| format!("{y}"))
            .label_style(("sans-serif", 11))
            .draw()?;
        for (api, place, label, color) in LINES {
            let points: Vec<_> = shown()
                .filter(|b| (&*b.api, &*b.place) == (*api, *place))
                .map(|b| (f64::from(b.size), cost(b)))
                .collect();
            if points.is_empty() {
                continue;
            }
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(*label)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(3)));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 11))
            .draw()?;
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
