// SPDX-License-Identifier: GPL-2.0
//! Pages and bursts as pictures: bars and lines, a colour for each API.

use crate::facts::suite::{Stat, Suite};
use crate::report::numbers::thousands;
use crate::report::run::{apis, unique};
use anyhow::Result;
use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::collections::BTreeMap;

pub fn color(api: &str) -> RGBColor {
    match api {
        "no_locks" => RGBColor(40, 120, 208),
        "nolock" => RGBColor(224, 130, 20),
        "nowait" => RGBColor(138, 143, 152),
        _ => RGBColor(150, 80, 180),
    }
}

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub fn svg(
    size: (u32, u32),
    label: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<Markup> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    draw(&area)?;
    area.present()?;
    drop(area);
    // An image with a name, for those who cannot see it.
    let tag = html! { svg role="img" aria-label=(label) {} }.into_string();
    let tag = tag.trim_end_matches("></svg>");
    Ok(PreEscaped(text.replacen("<svg", tag, 1)))
}

/// A group of bars for each context, a bar for each API; to `end`, or as far as the longest.
pub fn bars(
    suite: &Suite,
    title: &str,
    value: fn(&Stat) -> f64,
    label: fn(&Stat) -> String,
    (unit, end): (&str, Option<f64>),
) -> Result<Markup> {
    let contexts = unique(suite.stats.iter().map(|s| s.context.as_str()));
    let apis = apis(suite.stats.iter().map(|s| s.api.as_str()));
    let n = contexts.len();
    let top = suite.stats.iter().map(value).fold(1.0, f64::max);
    let height = n * (apis.len() * 13 + 10) + 50;
    svg((520, height as u32), title, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(if end.is_some() { 60 } else { 6 })
            .x_label_area_size(36)
            .y_label_area_size(100)
            .build_cartesian_2d(0.0..end.unwrap_or(top * 1.22), 0.0..n as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(128, 128, 128).mix(0.3))
            .x_labels(6)
            .x_desc(unit)
            .x_label_formatter(&|x| thousands(*x as u64))
            .y_labels(0)
            .label_style(("sans-serif", 12))
            .draw()?;
        let right = Pos::new(HPos::Right, VPos::Center);
        let style = TextStyle::from(("sans-serif", 12)).pos(right);
        for (i, context) in contexts.iter().enumerate() {
            let text = Text::new((*context).to_owned(), (-8, 0), style.clone());
            let middle = (0.0, (n - i) as f64 - 0.5);
            chart.draw_series([EmptyElement::at(middle) + text])?;
        }
        for stat in &suite.stats {
            let row = contexts
                .iter()
                .position(|c| *c == stat.context)
                .unwrap_or(0);
            let bar = apis.iter().position(|a| *a == stat.api).unwrap_or(0);
            let width = 0.8 / apis.len() as f64;
            let high = (n - row) as f64 - 0.1 - width * bar as f64;
            let ends = [(0.0, high), (value(stat), high - width * 0.9)];
            let middle = (value(stat), high - width * 0.45);
            chart.draw_series([Rectangle::new(ends, color(&stat.api).filled())])?;
            let text = Text::new(label(stat), (4, -5), ("sans-serif", 11));
            chart.draw_series([EmptyElement::at(middle) + text])?;
        }
        Ok(())
    })
}

/// (api, [(size, share)]) for a context; several bursts of a size count together.
pub fn burst_lines<'a>(suite: &'a Suite, context: &str) -> Vec<(&'a str, Vec<(f64, f64)>)> {
    let here = || {
        suite
            .bursts
            .iter()
            .filter(move |b| b.context == context && b.size > 0)
    };
    let line = |api| {
        let mut sums = BTreeMap::<u64, (f64, f64)>::new();
        for b in here().filter(|b| b.api == api) {
            let sum = sums.entry(b.size).or_default();
            sum.0 += b.obtained as f64;
            sum.1 += b.size as f64;
        }
        let points = sums
            .into_iter()
            .map(|(size, (got, all))| (size as f64, 100.0 * got / all));
        (api, points.collect())
    };
    apis(here().map(|b| b.api.as_str()))
        .into_iter()
        .map(line)
        .collect()
}

pub fn bursts(suite: &Suite, context: &str) -> Result<Markup> {
    // Lines often lie on each other: the lower ones are wider, and ours is on top.
    let lines = burst_lines(suite, context).into_iter().enumerate().rev();
    let lines: Vec<Line> = lines
        .map(|(i, (api, points))| Line {
            label: None,
            color: color(api),
            width: 2 + 3 * i as u32,
            points,
        })
        .collect();
    let label = format!("{context}: share of the pages obtained, by the size of the burst");
    svg((340, 220), &label, |area| {
        draw_by_burst(area, context, "% obtained", 105.0, &lines)
    })
}

/// A line of a picture by the size of a burst.
pub struct Line {
    /// For a legend.
    pub label: Option<&'static str>,
    pub color: RGBColor,
    pub width: u32,
    pub points: Vec<(f64, f64)>,
}

/// From nothing to `top`; the last line is above the others.
pub fn draw_by_burst(
    area: &Area<'_>,
    caption: &str,
    unit: &str,
    top: f64,
    lines: &[Line],
) -> Result<()> {
    let largest = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|p| p.0)
        .fold(2.0, f64::max);
    let ticks: Vec<f64> = (0..=63)
        .step_by(2)
        .map(|i| (1u64 << i) as f64)
        .take_while(|t| *t <= largest)
        .collect();
    let x = (1.0..largest).log_scale().with_key_points(ticks);
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(22)
        .caption(caption, ("sans-serif", 13))
        .x_label_area_size(34)
        .y_label_area_size(46)
        .build_cartesian_2d(x, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(128, 128, 128).mix(0.3))
        .y_labels(6)
        .x_desc("pages in the burst")
        .y_desc(unit)
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .label_style(("sans-serif", 11))
        .draw()?;
    for line in lines {
        let style = line.color.stroke_width(line.width);
        let drawn = chart.draw_series(LineSeries::new(line.points.clone(), style))?;
        if let Some(label) = line.label {
            drawn
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        let dots = line
            .points
            .iter()
            .map(|p| Circle::new(*p, line.width / 2 + 2, line.color.filled()));
        chart.draw_series(dots)?;
    }
    if lines.iter().any(|line| line.label.is_some()) {
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 11))
            .draw()?;
    }
    Ok(())
}

pub fn legend(apis: &[&str]) -> Markup {
    let css = |api| {
        let RGBColor(r, g, b) = color(api);
        format!("background:rgb({r},{g},{b})")
    };
    html! {
        p .legend { @for api in apis { span { i style=(css(api)) {} (api) } } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up::lane;

    #[test]
    fn bursts_of_a_size_count_together() {
        let suite = lane("x").suite.unwrap();
        assert_eq!(
            burst_lines(&suite, "task"),
            [("no_locks", vec![(1.0, 100.0), (4096.0, 75.0)])]
        );
    }
}
