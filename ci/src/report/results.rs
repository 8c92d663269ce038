// SPDX-License-Identifier: GPL-2.0
//! `docs/results.md`: what one run gave, as a page for the repository, and its picture.

use crate::report::run::{APIS, RunReport};
use crate::report::screen::{list_shares, render_screen, say_models, say_total};
use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde_json::Value;

const LEGEND: &str = "\
`no_locks` is `__GFP_NO_LOCKS`; `nolock` is mainline's `alloc_pages_nolock()` and `nowait` is `GFP_NOWAIT`, both in the same run \
and only where they\nare legal. A control is one deliberate bug, which has to come out red for its own reason. Of the three locks on \
PREEMPT_RT\none is `pcp->lock`; the other two are that lock's own `wait_lock`, which lockdep kernels take in its trylock and unlock.\n";

/// The page; its picture lies beside it as `picture`.
pub fn page(report: &RunReport, run: &str, picture: &str) -> String {
    let first = report.metadata.get(0).unwrap_or(&Value::Null);
    let word = |path: &str| {
        first
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or("unknown")
    };
    let short = |path: &str| word(path).chars().take(12).collect::<String>();
    format!(
        "# What one run gives\n\n\
        Written by `make results RUN={run}`, from that run's own report: Linux {} ({}),\nseries {}, project {}.\n\n\
        ![share of the pages asked for that were obtained, by context, lane and API]({picture})\n\n\
        {LEGEND}\n```\n{}\n{}{}\n```\n",
        word("/tree/version"),
        word("/tree/from"),
        short("/series"),
        short("/project"),
        render_screen(report),
        say_models(report).map_or(String::new(), |m| m + "\n"),
        say_total(report.total_s, &report.cache),
    )
}

/// Why a run is none to show: a page of red results would be read as what the series does.
pub fn why_unfit(report: &RunReport) -> Option<String> {
    let failed = report.lanes.iter().find(|l| !l.has_passed());
    match failed {
        Some(lane) => Some(format!("lane {} is red in it", lane.name)),
        None if report.contexts().is_empty() => Some("it measured no pages".to_owned()),
        None => None,
    }
}

const ROW: i32 = 24;
const CELL: i32 = 56;
const GAP: i32 = 14;
const LEFT: i32 = 96;
const TOP: i32 = 58;

/// Contexts down, lanes across, a cell for each API.
pub fn picture(report: &RunReport) -> Result<String> {
    let contexts = report.contexts();
    let lane_width = CELL * APIS.len() as i32 + GAP;
    let width = LEFT + lane_width * report.lanes.len() as i32;
    let height = TOP + ROW * contexts.len() as i32 + 8;
    let mut text = String::new();
    let area =
        SVGBackend::with_string(&mut text, (width as u32, height as u32)).into_drawing_area();
    // A page may be dark, and the text is not.
    area.fill(&WHITE)?;
    let style = |size: i32, horizontal| {
        TextStyle::from(("sans-serif", size)).pos(Pos::new(horizontal, VPos::Center))
    };
    for (row, context) in contexts.iter().enumerate() {
        let y = TOP + ROW * row as i32 + ROW / 2;
        area.draw_text(context, &style(13, HPos::Right), (LEFT - 10, y))?;
    }
    for (i, lane) in report.lanes.iter().enumerate() {
        let left = LEFT + lane_width * i as i32;
        let middle = left + CELL * APIS.len() as i32 / 2;
        area.draw_text(&lane.name, &style(14, HPos::Center), (middle, 18))?;
        for (column, api) in APIS.iter().enumerate() {
            let x = left + CELL * column as i32;
            area.draw_text(api, &style(11, HPos::Center), (x + CELL / 2, TOP - 14))?;
            for (row, context) in contexts.iter().enumerate() {
                let y = TOP + ROW * row as i32;
                let share = &list_shares(lane, context)[column];
                let ends = [(x + 1, y + 1), (x + CELL - 1, y + ROW - 1)];
                area.draw(&Rectangle::new(ends, color(share).filled()))?;
                let at = (x + CELL / 2, y + ROW / 2);
                area.draw_text(share, &style(12, HPos::Center), at)?;
            }
        }
    }
    area.present()?;
    drop(area);
    Ok(format!("<!-- SPDX-License-Identifier: GPL-2.0 -->\n{text}"))
}

/// From none to all; the number stands in the cell as well.
fn color(share: &str) -> RGBColor {
    const NONE: (f64, f64, f64) = (233.0, 150.0, 122.0);
    const ALL: (f64, f64, f64) = (143.0, 206.0, 160.0);
    let part = match share {
        "–" => return RGBColor(236, 236, 236),
        share => share.trim_start_matches('<').parse().unwrap_or(0.0) / 100.0,
    };
    let mix = |none: f64, all: f64| (none + (all - none) * part) as u8;
    RGBColor(mix(NONE.0, ALL.0), mix(NONE.1, ALL.1), mix(NONE.2, ALL.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::Exit;
    use crate::report::made_up::{lane, run};
    use crate::verdict::check::Check;

    #[test]
    fn a_page_shows_the_run_and_its_picture() {
        let report = run(vec![lane("a-lane"), lane("b-lane")]);
        let page = page(&report, "20260101-000000-test", "results.svg");
        for part in [
            "RUN=20260101-000000-test",
            "](results.svg)",
            &render_screen(&report),
            "total ",
        ] {
            assert!(page.contains(part), "{part}");
        }
        let picture = picture(&report).unwrap();
        assert!(picture.starts_with("<!-- SPDX-License-Identifier: GPL-2.0 -->\n<svg "));
        for lane in &report.lanes {
            assert!(picture.contains(&lane.name), "{}", lane.name);
        }
        for context in report.contexts() {
            assert!(picture.contains(context), "{context}");
        }
    }

    #[test]
    fn a_red_run_is_not_shown() {
        let mut report = run(vec![lane("a-lane")]);
        assert_eq!(why_unfit(&report), None);
        report.lanes[0].checks = vec![Check::failed("x", Exit::Test, "why")];
        assert!(why_unfit(&report).unwrap().contains(&report.lanes[0].name));
        report.lanes.clear();
        assert!(why_unfit(&report).unwrap().contains("no pages"));
    }

    #[test]
    fn a_share_has_its_colour() {
        assert_eq!(color("100"), RGBColor(143, 206, 160));
        assert_eq!(color("0"), RGBColor(233, 150, 122));
        assert_ne!(color("<0.1"), color("–"));
    }
}
