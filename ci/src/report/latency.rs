// SPDX-License-Identifier: GPL-2.0
//! How long objects waited in the queue, from the notes of its stress module.

use crate::facts::suite::Suite;
use crate::report::numbers::thousands;
use crate::report::pictures::{Area, svg};
use anyhow::Result;
use maud::{Markup, html};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Bucket `n` counts what took 2^n microseconds or more, but less than twice that.
pub struct Waits<'a> {
    what: &'a str,
    least_us: &'a str,
    buckets: Vec<(u32, u64)>,
}

impl<'a> Waits<'a> {
    pub fn new(what: &'a str, buckets: &[(u32, u64)]) -> Waits<'a> {
        Waits {
            what,
            least_us: "",
            buckets: buckets.to_vec(),
        }
    }

    /// As `make repro` of an older run may show others, what does not parse is left out.
    fn of(suite: &'a Suite) -> Vec<Waits<'a>> {
        let notes = suite.notes.iter().filter(|n| n.what == "latency");
        let waits = notes.filter_map(|note| {
            let field = |name: &str| {
                let field = note.fields.iter().find(|(key, _)| key == name);
                field.map(|(_, value)| value.as_str())
            };
            let bucket = |word: &str| {
                let (bucket, count) = word.split_once(':')?;
                Some((
                    bucket.parse().ok().filter(|b| *b < 63)?,
                    count.parse().ok()?,
                ))
            };
            let buckets = field("log2_us")?.split(',').map(bucket);
            Some(Waits {
                what: field("what")?,
                least_us: field("least_us")?,
                buckets: buckets.collect::<Option<_>>()?,
            })
        });
        waits.filter(|w| w.count() != 0).collect()
    }

    pub fn count(&self) -> u64 {
        let sum = |sum: u64, (_, n): &(u32, u64)| sum.saturating_add(*n);
        self.buckets.iter().fold(0, sum)
    }

    /// What so many of a hundred were less than.
    pub fn below(&self, percent: u128) -> String {
        let mut left = (u128::from(self.count()) * percent).div_ceil(100);
        for (bucket, count) in &self.buckets {
            left = left.saturating_sub((*count).into());
            if left == 0 {
                return time(bucket + 1);
            }
        }
        String::new()
    }
}

/// 2^n microseconds.
fn time(n: u32) -> String {
    match 1u64 << n.min(62) {
        us @ 0..1_000 => format!("{us} µs"),
        us @ 1_000..1_000_000 => format!("{} ms", us / 1_000),
        us => format!("{:.1} s", us as f64 / 1e6),
    }
}

fn color(what: &str) -> RGBColor {
    match what.split(['_', ' ']).next() {
        Some("full" | "push") => RGBColor(40, 120, 208),
        Some("half") => RGBColor(224, 130, 20),
        _ => RGBColor(138, 143, 152),
    }
}

pub fn size_of_waits(waits: &[Waits<'_>]) -> (u32, u32) {
    (760, waits.len() as u32 * 74 + 46)
}

/// One above the other, so that what they have in common and what not is to be seen.
pub fn draw_waits(area: &Area<'_>, waits: &[Waits<'_>]) -> Result<()> {
    let buckets = || waits.iter().flat_map(|w| w.buckets.iter().map(|(b, _)| *b));
    let first = buckets().min().unwrap_or(0);
    let last = buckets().max().unwrap_or(0) + 1;
    let rows = area.split_evenly((waits.len(), 1));
    for (waits, row) in waits.iter().zip(rows) {
        let count = waits.count() as f64;
        let share = |n: u64| 100.0 * n as f64 / count;
        let mut chart = ChartBuilder::on(&row)
            .margin(4)
            .margin_right(20)
            .x_label_area_size(18)
            .y_label_area_size(110)
            .build_cartesian_2d(f64::from(first)..f64::from(last), 0.0..105.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(128, 128, 128).mix(0.3))
            .x_labels((last - first + 1) as usize)
            .x_label_formatter(&|x| time(*x as u32))
            .y_labels(0)
            .label_style(("sans-serif", 12))
            .draw()?;
        let right = TextStyle::from(("sans-serif", 12)).pos(Pos::new(HPos::Right, VPos::Center));
        let name = Text::new(waits.what.to_owned(), (-8, 0), right);
        chart.draw_series([EmptyElement::at((f64::from(first), 50.0)) + name])?;
        chart.draw_series(waits.buckets.iter().map(|(bucket, n)| {
            let (left, right) = (f64::from(*bucket) + 0.06, f64::from(*bucket) + 0.94);
            Rectangle::new(
                [(left, 0.0), (right, share(*n))],
                color(waits.what).filled(),
            )
        }))?;
    }
    Ok(())
}

fn picture(waits: &[Waits<'_>]) -> Result<Markup> {
    let label = "How long objects waited: the share of each doubling of time";
    svg(size_of_waits(waits), label, |area| draw_waits(area, waits))
}

/// Nothing where nothing was measured.
pub fn section(suite: &Suite) -> Result<Markup> {
    let waits = Waits::of(suite);
    if waits.is_empty() {
        return Ok(html! {});
    }
    Ok(html! {
        h4 { "From push to free, without memory pressure" }
        p .dim { "Grey: one grace period alone. Blue: what was full, which waits for a worker and a grace period. "
            "Orange: what was not, a second more." }
        figure { (picture(&waits)?) }
        div .wide { table {
            tr { th scope="col" { "what" } th .n scope="col" { "objects" } th .n scope="col" { "half under" }
                th .n scope="col" { "99 % under" } th .n scope="col" { "all under" } th .n scope="col" { "least, µs" } }
            @for w in &waits {
                tr { td { (w.what) } td .n { (thousands(w.count())) } td .n { (w.below(50)) }
                    td .n { (w.below(99)) } td .n { (w.below(100)) } td .n { (w.least_us) } }
            }
        } }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::suite::Note;

    fn suite(log2_us: &[(&str, &str)]) -> Suite {
        let notes = log2_us.iter().map(|(what, buckets)| Note {
            what: "latency".into(),
            fields: [
                ("what", *what),
                ("count", "0"),
                ("least_us", "7"),
                ("log2_us", *buckets),
            ]
            .map(|(k, v)| (k.into(), v.into()))
            .to_vec(),
        });
        Suite {
            notes: notes.collect(),
            ..Suite::default()
        }
    }

    #[test]
    fn quantiles_are_the_upper_ends_of_buckets() {
        let suite = suite(&[("full_block", "3:50,10:49,20:1")]);
        let waits = Waits::of(&suite).pop().unwrap();
        let below = [50, 51, 99, 100].map(|p| waits.below(p));
        assert_eq!(below, ["16 µs", "2 ms", "2 ms", "2.1 s"]);
        assert_eq!(waits.count(), 100);
    }

    #[test]
    fn what_was_measured_is_shown_and_what_is_no_measurement_is_not() {
        let page = section(&suite(&[
            ("grace_period", "14:8"),
            ("half_list", "20:3,21:1"),
            ("x", "what"),
        ]));
        let page = page.unwrap().into_string();
        for there in ["grace_period", "half_list", "<svg", "4.2 s"] {
            assert!(page.contains(there), "{there}: {page}");
        }
        assert!(!page.contains("<td>x</td>"));
        for nothing in [&[][..], &[("x", "")], &[("x", "70:1")], &[("x", "1:0")]] {
            assert_eq!(section(&suite(nothing)).unwrap().into_string(), "");
        }
        let huge = format!("1:{0},2:{0}", u64::MAX);
        section(&suite(&[("x", &huge)])).unwrap();
    }
}
