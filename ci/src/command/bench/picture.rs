// SPDX-License-Identifier: GPL-2.0
//! What was counted as pictures: a page and its free by the size of the burst, and each path.

use super::counts::Counted;
use crate::report::pictures::{Area, Line, color, draw_by_burst};
use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
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

/// Paths whose cost is drawn, and what they are called.
const PATHS: &[(&str, &str)] = &[
    ("gfp_kernel", "GFP_KERNEL"),
    ("gfp_nowait", "GFP_NOWAIT"),
    ("no_locks_free_nolock", "__GFP_NO_LOCKS, lists"),
    ("no_locks_irqs_off", "the same, interrupts off"),
    ("no_locks_failing", "a call that fails"),
    ("kfree_rcu", "kfree_rcu()"),
    ("push", "push()"),
    ("push_headless", "push_headless()"),
    ("try_push", "try_push()"),
];

type Machines<'a> = BTreeMap<&'a str, &'a Counted>;

/// A panel for each machine. Without bursts there is none.
pub fn bursts(machines: &Machines<'_>) -> Result<Option<String>> {
    let with_bursts = machines.iter().filter(|(_, c)| !c.bursts.is_empty());
    let with_bursts: Machines<'_> = with_bursts.map(|(n, c)| (*n, *c)).collect();
    panels(&with_bursts, |panel, name, counted| {
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
        draw_by_burst(panel, name, "instructions a page and its free", top, &lines)
    })
}

/// A panel for each machine, as bars.
pub fn paths(machines: &Machines<'_>) -> Result<Option<String>> {
    panels(machines, |panel, name, counted| {
        let costs = PATHS
            .iter()
            .filter_map(|(op, label)| Some((*label, *counted.ops.get(*op)?)));
        let costs: Vec<(&str, f64)> = costs.collect();
        let most = costs.iter().map(|c| c.1).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(panel)
            .margin(8)
            .caption(name, ("sans-serif", 13))
            .x_label_area_size(34)
            .y_label_area_size(150)
            .build_cartesian_2d(0.0..1.15 * most, 0.0..costs.len() as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(128, 128, 128).mix(0.3))
            .x_labels(6)
            .x_desc("instructions; of a page with its free")
            .x_label_formatter(&|x| format!("{x}"))
            .y_labels(0)
            .label_style(("sans-serif", 11))
            .draw()?;
        let right = TextStyle::from(("sans-serif", 12)).pos(Pos::new(HPos::Right, VPos::Center));
        for (nth, (label, cost)) in costs.iter().enumerate() {
            let middle = (costs.len() - nth) as f64 - 0.5;
            // What mainline has is grey, as in the other pictures.
            let of_mainline = label.starts_with("GFP_") || label.starts_with("kfree");
            let fill = color(if of_mainline { "nowait" } else { "no_locks" }).filled();
            let bar = Rectangle::new([(0.0, middle - 0.35), (*cost, middle + 0.35)], fill);
            chart.draw_series([bar])?;
            let text = Text::new((*label).to_owned(), (-6, 0), right.clone());
            chart.draw_series([EmptyElement::at((0.0, middle)) + text])?;
            let text = Text::new(format!("{cost:.0}"), (4, -5), ("sans-serif", 11));
            chart.draw_series([EmptyElement::at((*cost, middle)) + text])?;
        }
        Ok(())
    })
}

fn panels(
    machines: &Machines<'_>,
    draw: impl Fn(&Area<'_>, &str, &Counted) -> Result<()>,
) -> Result<Option<String>> {
    if machines.is_empty() {
        return Ok(None);
    }
    let columns = machines.len().min(2);
    let rows = machines.len().div_ceil(columns);
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    // A page may be dark, and the text is not.
    area.fill(&WHITE)?;
    for (panel, (name, counted)) in area.split_evenly((rows, columns)).iter().zip(machines) {
        draw(panel, name, counted)?;
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
        let picture = bursts(&machines).unwrap().unwrap();
        for text in ["SPDX", "a-machine", "b-machine", "interrupts off"] {
            assert!(picture.contains(text), "{text}");
        }
        assert!(!picture.contains("NMI"));
        let none = Counted::default();
        assert_eq!(bursts(&BTreeMap::from([("x", &none)])).unwrap(), None);
    }

    #[test]
    fn each_path_that_was_counted_has_a_bar_and_its_cost() {
        let counted = Counted {
            ops: [("push", 65.4), ("gfp_kernel", 748.0)]
                .map(|(op, n)| (op.to_owned(), n))
                .into(),
            ..Counted::default()
        };
        let picture = paths(&BTreeMap::from([("a-machine", &counted)]))
            .unwrap()
            .unwrap();
        for text in ["SPDX", "a-machine", "GFP_KERNEL", "748", "push()", "65"] {
            assert!(picture.contains(text), "{text}");
        }
        assert!(!picture.contains("try_push"));
    }
}
