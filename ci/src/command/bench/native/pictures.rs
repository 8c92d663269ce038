// SPDX-License-Identifier: GPL-2.0
//! The native figures as pictures.

use super::figures::{Figures, Memory, Share};
use super::tables::by_name;
use crate::report::latency::{Waits, draw_waits, size_of_waits};
use crate::report::pictures::{Area, Line, color, draw_by_burst, svg};
use anyhow::Result;
use plotters::prelude::*;

/// Their files, and what is to be seen.
pub const FILES: [(&str, &str); 3] = [
    (
        "bench-share.svg",
        "the share of a burst that is obtained, by its size",
    ),
    (
        "bench-waits.svg",
        "how long objects wait from the call to the free",
    ),
    (
        "bench-memory.svg",
        "memory in use while a million objects of 1 KiB are freed, over time",
    ),
];

/// As the files are named.
pub fn draw(figures: &Figures) -> Result<[String; 3]> {
    let waits = by_name(&figures.waits);
    let waits: Vec<Waits> = waits
        .iter()
        .map(|(n, w)| Waits::new(n, &w.log2_us))
        .collect();
    let [share, waiting, memory] = FILES.map(|(_, about)| about);
    Ok([
        picture((560, 300), share, |area| shares(area, &figures.shares))?,
        picture(size_of_waits(&waits), waiting, |area| {
            draw_waits(area, &waits)
        })?,
        picture((760, 300), memory, |area| over_time(area, &figures.memory))?,
    ])
}

fn picture(
    size: (u32, u32),
    about: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    let picture = svg(size, about, |area| {
        // A page may be dark, and the text is not.
        area.fill(&WHITE)?;
        draw(area)
    })?;
    let picture = picture.into_string();
    Ok(format!(
        "<!-- SPDX-License-Identifier: GPL-2.0 -->\n{picture}"
    ))
}

fn shares(area: &Area<'_>, shares: &[Share]) -> Result<()> {
    // Ours on top, and narrow enough that one below it is seen.
    const APIS: [(&str, &str, u32); 3] = [
        ("nowait", "GFP_NOWAIT", 8),
        ("nolock", "alloc_pages_nolock()", 5),
        ("no_locks", "__GFP_NO_LOCKS", 2),
    ];
    let lines = APIS.map(|(api, label, width)| Line {
        label: Some(label),
        color: color(api),
        width,
        points: shares
            .iter()
            .filter(|s| s.api == api)
            .map(|s| (s.size as f64, s.obtained.median))
            .collect(),
    });
    draw_by_burst(area, "under a raw spinlock", "% obtained", 105.0, &lines)
}

fn over_time(area: &Area<'_>, memory: &Memory) -> Result<()> {
    let end = |of: fn(&(u64, u64)) -> u64| {
        memory.values().flatten().map(of).max().unwrap_or(0).max(1) as f64
    };
    let (ms, mib) = (end(|p| p.0) / 1e3, end(|p| p.1) / 1024.0);
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(22)
        .x_label_area_size(34)
        .y_label_area_size(46)
        .build_cartesian_2d(0.0..ms, 0.0..1.05 * mib)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(128, 128, 128).mix(0.3))
        .x_desc("ms")
        .y_desc("MiB more than before")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(("sans-serif", 11))
        .draw()?;
    for (api, points) in memory {
        let style = color(if api == "push" { "no_locks" } else { "nowait" }).stroke_width(2);
        let points = points
            .iter()
            .map(|(us, kib)| (*us as f64 / 1e3, *kib as f64 / 1024.0));
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(format!("{api}()"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 11))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::console;
    use super::*;

    #[test]
    fn each_picture_shows_what_was_measured() {
        let figures = Figures::read(&console(|_| 1_000_000)).unwrap();
        let pictures = draw(&figures).unwrap();
        for (picture, texts) in pictures.iter().zip([
            ["% obtained", "__GFP_NO_LOCKS"],
            ["push 64 B", "131 ms"],
            ["MiB more than before", "push()"],
        ]) {
            assert!(picture.starts_with("<!-- SPDX"));
            for text in texts {
                assert!(picture.contains(text), "{text}: {picture}");
            }
        }
    }
}
