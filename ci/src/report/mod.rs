// SPDX-License-Identifier: GPL-2.0
//! What a run found, for people (one screen, one page) and for machines (JSON by serde, JUnit).

mod latency;
pub mod results;

use crate::facts::ktap::{Locks, Note, Stat, Status, Suite};
use crate::facts::scan::Finding;
use crate::verdict::check::{Check, Found};
use crate::verdict::judge::{BootReport, ControlResult};
use anyhow::{Result, anyhow};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LaneReport {
    pub name: String,
    pub arch: String,
    pub kernel: String,
    pub accel: String,
    /// All boots together.
    pub duration_s: f64,
    /// The contexts where the contract promises pages.
    pub promised: Vec<String>,
    pub suite: Option<Suite>,
    pub queue: Option<Suite>,
    /// The queue's, when blocks cannot be allocated.
    pub failing: Option<Suite>,
    pub kunit: Vec<Suite>,
    /// Beside the one with the modules.
    pub boots: Vec<BootReport>,
    pub controls: Vec<ControlResult>,
    pub findings: Vec<Finding>,
    pub debug_locks: Option<bool>,
    /// Boots that hung and were repeated.
    pub hung: Vec<String>,
    /// The folders that hold the console.txt of a boot.
    pub consoles: Vec<String>,
    /// All that was held against the lane's demands.
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RunReport {
    pub lanes: Vec<LaneReport>,
    pub metadata: serde_json::Value,
    /// From the command to this report.
    pub total_s: f64,
    /// Whether kernels of an earlier run were there: `cold` or `warm`.
    pub cache: String,
    /// What loom and proptest went through without finding a bug, if that was part of the run.
    #[serde(default)]
    pub explored: Vec<String>,
}

/// Ours first, then mainline's, in the order in which they appear everywhere in the report.
const APIS: [&str; 3] = ["no_locks", "nolock", "nowait"];
const OPS: [&str; 2] = ["alloc", "free"];
/// The screen must stay one screen; the files have the rest.
const PROBLEMS: usize = 10;

impl LaneReport {
    fn stat(&self, context: &str, api: &str) -> Option<&Stat> {
        let stats = &self.suite.as_ref()?.stats;
        stats.iter().find(|s| s.context == context && s.api == api)
    }

    /// Those of the API under test.
    fn locks(&self) -> impl Iterator<Item = &Locks> {
        let locks = self.suite.iter().flat_map(|s| &s.locks);
        locks.filter(|l| l.api == APIS[0])
    }

    fn obtained(&self) -> u64 {
        let stats = self.suite.iter().flat_map(|s| &s.stats);
        stats.filter(|s| s.api == APIS[0]).map(|s| s.obtained).sum()
    }

    /// Those of the boot with the modules.
    fn suites(&self) -> impl Iterator<Item = &Suite> {
        let modules = self.suite.iter().chain(&self.queue).chain(&self.failing);
        modules.chain(&self.kunit)
    }

    /// With the boot that each is of, where it is not that one.
    fn all_suites(&self) -> impl Iterator<Item = (Option<&str>, &Suite)> {
        let more = self.boots.iter();
        let more = more.flat_map(|b| b.kunit.iter().map(|s| (Some(b.name.as_str()), s)));
        self.suites().map(|s| (None, s)).chain(more)
    }

    fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        let more = self.boots.iter().flat_map(|b| &b.findings);
        self.findings.iter().chain(more)
    }

    /// On, if it was on at the end of each boot.
    fn debug_locks(&self) -> Option<bool> {
        let more = self.boots.iter().map(|b| b.debug_locks);
        let mut all = std::iter::once(self.debug_locks).chain(more).flatten();
        all.clone().next().map(|_| all.all(|on| on))
    }

    fn count(&self, status: Status) -> usize {
        self.all_suites().map(|(_, s)| s.count(status)).sum()
    }

    /// What failed, without the lane's name before it.
    pub fn problems(&self) -> Vec<String> {
        let failures = self.checks.iter().filter_map(Check::failure);
        let lane = format!("{}: ", self.name);
        let text = |(_, what): (_, String)| what.strip_prefix(&lane).unwrap_or(&what).to_owned();
        failures.map(text).collect()
    }

    fn has_passed(&self) -> bool {
        !self.checks.is_empty() && self.problems().is_empty()
    }

    fn controls_red(&self) -> String {
        let red = self.controls.iter().filter(|c| c.ok).count();
        match self.controls.len() {
            0 => "–".to_owned(),
            all => format!("{red}/{all} red"),
        }
    }

    /// What was done again inside a case, by case.
    fn repetitions(&self) -> Option<String> {
        let suites = self.all_suites();
        let cases = suites.flat_map(|(_, suite)| {
            let cases = suite.cases.iter().filter(|c| c.repetitions > 0);
            cases.map(|c| format!("{} {} ({})", suite.name, c.name, c.repetitions))
        });
        let cases = Vec::from_iter(cases).join(", ");
        (!cases.is_empty()).then(|| format!("repeated inside a case: {cases}"))
    }

    fn cases(&self) -> String {
        let (pass, fail, skip) = (Status::Pass, Status::Fail, Status::Skip);
        let mut text = format!("{} ok", self.count(pass));
        for (status, word) in [(fail, "failed"), (skip, "skipped")] {
            match self.count(status) {
                0 => {}
                n => text += &format!(", {n} {word}"),
            }
        }
        text
    }

    fn lockdep(&self) -> &'static str {
        match self.debug_locks() {
            Some(true) => "on",
            Some(false) => "OFF",
            None => "–",
        }
    }
}

impl RunReport {
    /// Those with pages where they are promised; the page has the others.
    fn contexts(&self) -> Vec<&str> {
        let lanes = self.lanes.iter();
        let contexts = lanes.flat_map(|l| l.promised.iter().map(move |c| (l, c.as_str())));
        let asked = contexts.filter(|(l, c)| l.stat(c, APIS[0]).is_some());
        unique(asked.map(|(_, c)| c))
    }

    fn lock_contexts(&self) -> Vec<&str> {
        let locks = self.lanes.iter().flat_map(LaneReport::locks);
        unique(locks.map(|l| l.context.as_str()))
    }
}

fn unique<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut out = Vec::new();
    for item in items {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

fn apis<'a>(used: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all = unique(used);
    all.sort_by_key(|api| APIS.iter().position(|a| a == api).unwrap_or(APIS.len()));
    all
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}

fn decimal(tenths: u128) -> String {
    match tenths % 10 {
        0 => (tenths / 10).to_string(),
        rest => format!("{}.{rest}", tenths / 10),
    }
}

/// In tenths, rounded down: 100 means every single page, and 0 none.
fn percent(obtained: u64, attempts: u64) -> String {
    match (u128::from(obtained) * 1000).checked_div(u128::from(attempts)) {
        None => "–".to_owned(),
        Some(0) if obtained > 0 => "<0.1".to_owned(),
        Some(tenths) => decimal(tenths),
    }
}

/// In tenths, rounded up: 1 means that not a single call took one lock more.
fn per_call(locks: &Locks) -> String {
    match u128::from(locks.calls) {
        0 => "–".to_owned(),
        calls => decimal((u128::from(locks.locks) * 10).div_ceil(calls)),
    }
}

pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    groups
        .iter()
        .map(|g| String::from_utf8_lossy(g))
        .collect::<Vec<_>>()
        .join(",")
}

fn time(seconds: f64) -> String {
    crate::base::progress::span(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn shares(lane: &LaneReport, context: &str) -> Vec<String> {
    let share = |api| {
        let stat = lane.stat(context, api);
        stat.map_or("–".to_owned(), |s| percent(s.obtained, s.attempts))
    };
    APIS.map(share).to_vec()
}

fn locks(lane: &LaneReport, context: &str) -> Vec<String> {
    let taken = |op| {
        let mut locks = lane.locks();
        let locks = locks.find(|l| l.context == context && l.op == op);
        locks.map_or("–".to_owned(), per_call)
    };
    OPS.map(taken).to_vec()
}

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

/// Contexts down, lanes across, the values side by side in each cell.
fn grid(
    report: &RunReport,
    contexts: &[&str],
    values: fn(&LaneReport, &str) -> Vec<String>,
) -> String {
    let mut header = vec!["context".to_owned()];
    header.extend(report.lanes.iter().map(|l| l.name.clone()));
    let row = |context: &&str| {
        let cell = |lane: &LaneReport| {
            let aligned = values(lane, context).into_iter().map(|v| format!("{v:>4}"));
            aligned.collect::<Vec<_>>().join(" / ")
        };
        let mut row = vec![(*context).to_owned()];
        row.extend(report.lanes.iter().map(cell));
        row
    };
    table(header, contexts.iter().map(row).collect(), 1)
}

/// What the queue's stress module saw, in a line.
pub fn queue(suite: &Suite) -> String {
    let freed = suite.objects.as_ref().map_or(0, |o| o.freed);
    let mut text = format!("{} freed", thousands(freed));
    if let Some(peak) = &suite.peak {
        text += &format!(
            "; without a pause {} a second on {} CPUs, {} of {} without a block",
            thousands(peak.pushed * 1000 / peak.ms.max(1)),
            peak.cpus,
            thousands(peak.listed),
            thousands(peak.pushed)
        );
    }
    text
}

/// All that the user waited for, unit tests and builds too.
pub fn total(report: &RunReport) -> String {
    format!("total {}, cache {}", time(report.total_s), report.cache)
}

/// What was gone through on the host, in a run that did.
pub fn models(report: &RunReport) -> Option<String> {
    let explored = report.explored.join(", ");
    (!explored.is_empty()).then(|| format!("models without a bug found: {explored}"))
}

/// The run on one screen of plain text.
pub fn screen(report: &RunReport) -> String {
    let header = [
        "lane",
        "verdict",
        "cases",
        "pages obtained",
        "controls",
        "splats",
        "lockdep",
        "boots",
        "their time",
    ];
    let rows = report.lanes.iter().map(|l| {
        vec![
            l.name.clone(),
            if l.has_passed() { "pass" } else { "FAIL" }.to_owned(),
            l.cases(),
            thousands(l.obtained()),
            l.controls_red(),
            l.all_findings().count().to_string(),
            l.lockdep().to_owned(),
            l.consoles.len().to_string(),
            time(l.duration_s),
        ]
    });
    let mut out = table(header.map(str::to_owned).to_vec(), rows.collect(), 3);
    let (contexts, lock_contexts) = (report.contexts(), report.lock_contexts());
    if !contexts.is_empty() {
        out += &format!(
            "\nshare of pages obtained where they are promised, %: {}\n{}",
            APIS.join(" / "),
            grid(report, &contexts, shares)
        );
    }
    if !lock_contexts.is_empty() {
        out += &format!(
            "\nlocks that a call of {} takes: {}\n{}",
            APIS[0],
            OPS.join(" / "),
            grid(report, &lock_contexts, locks)
        );
    }
    let queues: Vec<_> = report
        .lanes
        .iter()
        .filter_map(|l| Some(vec![l.name.clone(), queue(l.queue.as_ref()?)]))
        .collect();
    if !queues.is_empty() {
        out += &format!(
            "\n{}",
            table(vec!["queue".to_owned(), "objects".to_owned()], queues, 2)
        );
    }
    let problem = |l: &LaneReport| {
        l.problems()
            .into_iter()
            .map(|p| format!("{}: {p}", l.name))
            .collect::<Vec<_>>()
    };
    let problems: Vec<_> = report.lanes.iter().flat_map(problem).collect();
    if !problems.is_empty() {
        out.push('\n');
    }
    for p in problems.iter().take(PROBLEMS) {
        out += &format!("FAIL {p}\n");
    }
    for l in &report.lanes {
        for boot in l.hung.iter().cloned().chain(l.repetitions()) {
            out += &format!("NOTE {}: {boot}\n", l.name);
        }
    }
    if problems.len() > PROBLEMS {
        out += &format!("and {} more: see report.html\n", problems.len() - PROBLEMS);
    }
    out
}

fn color(api: &str) -> RGBColor {
    match api {
        "no_locks" => RGBColor(40, 120, 208),
        "nolock" => RGBColor(224, 130, 20),
        "nowait" => RGBColor(138, 143, 152),
        _ => RGBColor(150, 80, 180),
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn svg(
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
fn bars(
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
fn burst_lines<'a>(suite: &'a Suite, context: &str) -> Vec<(&'a str, Vec<(f64, f64)>)> {
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

fn bursts(suite: &Suite, context: &str) -> Result<Markup> {
    let lines = burst_lines(suite, context);
    let largest = lines
        .iter()
        .flat_map(|(_, l)| l)
        .map(|p| p.0)
        .fold(2.0, f64::max);
    let ticks: Vec<f64> = (0..=63)
        .step_by(2)
        .map(|i| (1u64 << i) as f64)
        .take_while(|t| *t <= largest)
        .collect();
    let label = format!("{context}: share of the pages obtained, by the size of the burst");
    svg((340, 220), &label, |area| {
        let x = (1.0..largest).log_scale().with_key_points(ticks);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(22)
            .caption(context, ("sans-serif", 13))
            .x_label_area_size(34)
            .y_label_area_size(42)
            .build_cartesian_2d(x, 0.0..105.0)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(128, 128, 128).mix(0.3))
            .y_labels(6)
            .x_desc("pages in the burst")
            .y_desc("% obtained")
            .x_label_formatter(&|x| format!("{x}"))
            .y_label_formatter(&|y| format!("{y}"))
            .label_style(("sans-serif", 11))
            .draw()?;
        // Lines often lie on each other: the lower ones are wider, and ours is on top.
        for (i, (api, points)) in lines.iter().enumerate().rev() {
            let width = 2 + 3 * i as u32;
            chart.draw_series(LineSeries::new(
                points.clone(),
                color(api).stroke_width(width),
            ))?;
            let dots = points
                .iter()
                .map(|p| Circle::new(*p, width / 2 + 2, color(api).filled()));
            chart.draw_series(dots)?;
        }
        Ok(())
    })
}

fn legend(apis: &[&str]) -> Markup {
    let css = |api| {
        let RGBColor(r, g, b) = color(api);
        format!("background:rgb({r},{g},{b})")
    };
    html! {
        p .legend { @for api in apis { span { i style=(css(api)) {} (api) } } }
    }
}

fn verdict(lane: &LaneReport) -> Markup {
    html! {
        @if lane.has_passed() { b .ok { "pass" } }
        @else { b .bad { "FAIL" } " " (lane.problems().join("; ")) }
    }
}

fn overview(report: &RunReport) -> Markup {
    html! {
        div .wide { table {
            tr { @for h in ["lane", "verdict", "cases"] { th scope="col" { (h) } }
                @for h in ["pages obtained", "controls", "splats", "lockdep", "boots", "their time"] { th .n scope="col" { (h) } } }
            @for l in &report.lanes {
                tr {
                    td { a href={ "#" (l.name) } { (l.name) } }
                    td { (verdict(l)) }
                    td { (l.cases()) }
                    td .n { (thousands(l.obtained())) }
                    td .n { (l.controls_red()) }
                    td .n { (l.all_findings().count()) }
                    td .n { (l.lockdep()) }
                    td .n { (l.consoles.len()) }
                    td .n { (time(l.duration_s)) }
                }
            }
        } }
    }
}

fn stats_table(suite: &Suite) -> Markup {
    html! {
        details { summary { "The numbers" } div .wide { table {
            tr { th scope="col" { "context" } th scope="col" { "API" } th .n scope="col" { "attempts" } th .n scope="col" { "obtained" } th .n scope="col" { "share, %" } }
            @for s in &suite.stats {
                tr {
                    td { (s.context) } td { (s.api) } td .n { (thousands(s.attempts)) }
                    td .n { (thousands(s.obtained)) } td .n { (percent(s.obtained, s.attempts)) }
                }
            }
        } } }
    }
}

fn bursts_table(suite: &Suite) -> Markup {
    let contexts = unique(suite.bursts.iter().map(|b| b.context.as_str()));
    html! {
        details { summary { "The numbers" } div .wide { table {
            tr { th scope="col" { "context" } th scope="col" { "API" } th .n scope="col" { "pages in the burst" } th .n scope="col" { "obtained, %" } }
            @for context in contexts { @for (api, points) in burst_lines(suite, context) { @for (size, share) in points {
                tr { td { (context) } td { (api) } td .n { (thousands(size as u64)) } td .n { (format!("{share:.1}")) } }
            } } }
        } } }
    }
}

/// What the modules noted, a table for each kind of line.
fn notes(suite: &Suite) -> Markup {
    let title = |what: &str| match what {
        "storm" => "Parts of the slots' code that NMIs hit",
        "tick" => "Pages taken at a tick",
        "push" => "Locks taken by undisturbed pushes",
        "readers" => "Readers of objects that are replaced, and how many met a freed one",
        _ => "Notes",
    };
    let names = |n: &Note| Vec::from_iter(n.fields.iter().map(|(k, _)| k.clone()));
    let mut kinds: Vec<(&str, Vec<String>)> = Vec::new();
    // Latencies have a picture of their own.
    for note in suite.notes.iter().filter(|n| n.what != "latency") {
        let kind = (note.what.as_str(), names(note));
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    html! {
        @for (what, fields) in &kinds {
            h4 { (title(what)) }
            div .wide { table {
                tr { @for field in fields { th .n scope="col" { (field) } } }
                @for note in suite.notes.iter().filter(|n| n.what == *what && names(n) == *fields) {
                    tr { @for (_, value) in &note.fields { td .n { (value) } } }
                }
            } }
        }
    }
}

fn locks_table(suite: &Suite) -> Markup {
    let named = |l: &Locks| {
        let names = l.names.iter().map(|(name, n)| format!("{n} × {name}"));
        names.collect::<Vec<_>>().join(", ")
    };
    html! {
        h3 { "Locks taken by undisturbed calls" }
        div .wide { table {
            tr { th scope="col" { "context" } th scope="col" { "API" } th scope="col" { "operation" } th .n scope="col" { "calls" } th .n scope="col" { "locks" }
                th .n scope="col" { "locks for each call" } th .n scope="col" { "RCU's" } th scope="col" { "by name" } }
            @for l in &suite.locks {
                tr {
                    td { (l.context) } td { (l.api) } td { (l.op) } td .n { (thousands(l.calls)) }
                    td .n { (thousands(l.locks)) } td .n { (per_call(l)) } td .n { (thousands(l.rcu)) }
                    td { code { (named(l)) } }
                }
            }
        } }
    }
}

fn cases_table(boot: Option<&str>, suite: &Suite) -> Markup {
    let word = |status| match status {
        Status::Pass => ("ok", "pass"),
        Status::Fail => ("bad", "FAIL"),
        Status::Skip => ("dim", "skip"),
    };
    let failed = suite.count(Status::Fail);
    html! {
        details open[failed > 0] {
            summary { "Cases of " (suite.name)
                @if let Some(boot) = boot { ", boot " (boot) }
                ": " (suite.cases.len())
                @if failed > 0 { ", " b .bad { (failed) " failed" } } }
            div .wide { table {
                @for c in &suite.cases {
                    tr { td { b .(word(c.status).0) { (word(c.status).1) } } td { (c.name) }
                        td { (c.reason.as_deref().unwrap_or("")) } }
                }
            } }
        }
    }
}

fn figures(suite: &Suite) -> Result<Markup> {
    let share = |s: &Stat| 100.0 * s.obtained as f64 / (s.attempts.max(1)) as f64;
    let share_label = |s: &Stat| format!("{} %", percent(s.obtained, s.attempts));
    let (share_title, pages_title) = (
        "Share of the pages asked for that were obtained",
        "Pages obtained",
    );
    let (pages, pages_label) = (
        |s: &Stat| s.obtained as f64,
        |s: &Stat| thousands(s.obtained),
    );
    let mut small = Vec::new();
    for context in unique(suite.bursts.iter().map(|b| b.context.as_str())) {
        small.push(bursts(suite, context)?);
    }
    Ok(html! {
        @if !suite.stats.is_empty() {
            (legend(&apis(suite.stats.iter().map(|s| s.api.as_str()))))
            div .plots {
                figure { figcaption { (share_title) }
                    (bars(suite, share_title, share, share_label, ("%", Some(105.0)))?) }
                figure { figcaption { (pages_title) }
                    (bars(suite, pages_title, pages, pages_label, ("pages", None))?) }
            }
            (stats_table(suite))
        }
        @if !suite.locks.is_empty() { (locks_table(suite)) }
        @if !small.is_empty() {
            h3 { "Bursts: how many pages in a row" }
            (legend(&apis(suite.bursts.iter().map(|b| b.api.as_str()))))
            div .plots { @for plot in small { figure { (plot) } } }
            (bursts_table(suite))
        }
    })
}

fn lane_section(lane: &LaneReport) -> Result<Markup> {
    let (suite, ledger) = (
        lane.suite.as_ref(),
        lane.suite.as_ref().and_then(|s| s.ledger.as_ref()),
    );
    Ok(html! {
        section id=(lane.name) {
            h2 { (lane.name) }
            p { (verdict(lane)) }
            p .dim { (lane.arch) ", Linux " (lane.kernel) ", " (lane.accel) ", " (time(lane.duration_s))
                @if let Some(seed) = suite.and_then(|s| s.seed) { ", seed " (seed) }
                @if let Some(l) = ledger { ", ledger: " (thousands(l.obtained)) " obtained, " (thousands(l.freed)) " freed" } }
            @for note in lane.hung.iter().cloned().chain(lane.repetitions()) { p { b { "Note: " } (note) } }
            p { "Consoles: " @for boot in &lane.consoles {
                a href={ (lane.name) "/" (boot) "/console.txt" } { (boot) } " "
            } }
            @if lane.all_findings().next().is_some() {
                h3 { "Splats" }
                div .wide { table {
                    tr { th .n scope="col" { "console line" } th scope="col" { "rule" } th scope="col" { "what the kernel said" } th scope="col" { "why it counts" } }
                    @for f in lane.all_findings() {
                        tr { td .n { (f.line_no) } td { b .bad { (f.rule) } } td { code { (f.line) } } td { (f.reason) } }
                    }
                } }
            }
            @if !lane.controls.is_empty() {
                h3 { "Controls: deliberate bugs that must be caught" }
                div .wide { table {
                    tr { th scope="col" { "control" } th scope="col" { "must give" } th scope="col" { "gave" } th scope="col" { "" } }
                    @for c in &lane.controls {
                        tr { td { (c.name) } td { code { (c.expected) } } td { code { (or_dash(&c.seen)) } }
                            td { @if c.ok { b .ok { "caught" } } @else { b .bad { "WRONG" } } } }
                    }
                } }
            }
            @if let Some(suite) = suite { h3 { "Pages" } (figures(suite)?) (notes(suite)) }
            @if let Some(suite) = &lane.queue { h3 { "Queue" } p { (queue(suite)) } (latency::section(suite)?) (notes(suite)) }
            h3 { "Tests" }
            @for (boot, suite) in lane.all_suites() { (cases_table(boot, suite)) }
        }
    })
}

const STYLE: &str = "
:root{color-scheme:light dark;--fg:#1c1e21;--bg:#fff;--dim:#667;--line:#8884;--ok:#187a36;--bad:#c01c28}
@media(prefers-color-scheme:dark){:root{--fg:#e4e6e9;--bg:#16181b;--dim:#9aa0a8;--ok:#57c878;--bad:#ff7b72}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:1120px;margin:auto;padding:1.5rem}
h1{font-size:1.5rem}h2{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:1rem}h3,h4{margin:1.5rem 0 .4rem}
table{border-collapse:collapse}th,td{padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top}
tr+tr{border-top:1px solid var(--line)}th{color:var(--dim);font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}.ok{color:var(--ok)}.bad{color:var(--bad)}.dim{color:var(--dim)}a{color:inherit}
code,pre{font:13px/1.4 ui-monospace,monospace}pre{overflow-x:auto}summary{cursor:pointer;margin:.4rem 0}
.plots{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;max-width:100%}figcaption{font-weight:600}
svg{max-width:100%;height:auto}svg [fill='#000000']{fill:var(--fg)}svg [stroke='#000000']{stroke:var(--dim)}
.legend span{margin-right:1.2rem}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em}
";

/// The lanes whose kernel was not made of patches/ as it is.
fn changed(report: &RunReport) -> Vec<(&str, &'static str)> {
    let lanes = report.metadata.as_array().into_iter().flatten();
    lanes
        .filter_map(|lane| {
            let changes = lane["changes"].as_object()?;
            let text = if changes["had_series"] == true {
                "the series with changes of the tree's own"
            } else {
                "patches/ on top of work that was not committed"
            };
            Some((lane["lane"].as_str()?, text))
        })
        .collect()
}

/// A page that needs nothing but itself.
pub fn html(report: &RunReport) -> Result<String> {
    let sections = report
        .lanes
        .iter()
        .map(lane_section)
        .collect::<Result<Vec<_>>>()?;
    let metadata = serde_json::to_string_pretty(&report.metadata)?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "nolocks: run report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "nolocks: run report" }
                (overview(report))
                p .dim { (total(report)) }
                @for (lane, text) in changed(report) { p { (lane) ": " (text) " (local.diff)" } }
                @if let Some(models) = models(report) { p .dim { (models) } }
                @for section in sections { (section) }
                section {
                    h2 { "What ran" }
                    details { summary { "Versions, hashes and parameters" } pre { (metadata) } }
                }
            }
        }
    };
    Ok(page.into_string())
}

fn failed(message: &str, text: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(message).set_description(text);
    status
}

/// For machines that read JUnit: every case, every other check of the lane, and what they come to.
pub fn junit(report: &RunReport) -> Result<String> {
    let mut out = Report::new("nolocks");
    for lane in &report.lanes {
        for (boot, suite) in lane.all_suites() {
            let boot = boot.map(|b| format!(".{b}")).unwrap_or_default();
            let mut tests = TestSuite::new(format!("{}{boot}.{}", lane.name, suite.name));
            for case in &suite.cases {
                let reason = case.reason.as_deref().unwrap_or("no reason given");
                let status = match case.status {
                    Status::Pass => TestCaseStatus::success(),
                    Status::Fail => failed(reason, reason),
                    Status::Skip => {
                        let mut status = TestCaseStatus::skipped();
                        status.set_message(reason);
                        status
                    }
                };
                tests.add_test_case(TestCase::new(case.name.as_str(), status));
            }
            for s in &suite.stats {
                let name = format!("share.{}.{}", s.context, s.api);
                tests.add_property((name, percent(s.obtained, s.attempts)));
            }
            for l in &suite.locks {
                let name = format!("locks.{}.{}.{}", l.context, l.api, l.op);
                tests.add_property((name, per_call(l)));
            }
            out.add_test_suite(tests);
        }
        let mut tests = TestSuite::new(format!("{}.boot", lane.name));
        tests.set_time(Duration::try_from_secs_f64(lane.duration_s).unwrap_or_default());
        let prefix = format!("{}: ", lane.name);
        for check in lane.checks.iter().filter(|c| !c.is_case) {
            let status = match &check.found {
                Found::Passed => TestCaseStatus::success(),
                Found::Skipped => TestCaseStatus::skipped(),
                Found::Failed { why, .. } => failed(why, why),
            };
            let name = check.name.strip_prefix(&prefix).unwrap_or(&check.name);
            tests.add_test_case(TestCase::new(name, status));
        }
        let status = match lane.problems().join("; ") {
            why if why.is_empty() => TestCaseStatus::success(),
            why => failed(&why, &why),
        };
        tests.add_test_case(TestCase::new("verdict", status));
        out.add_test_suite(tests);
    }
    out.to_string().map_err(|e| anyhow!("JUnit: {e}"))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::base::exit::Exit;
    use crate::facts::ktap::{
        Case,
        tests::{config, suites},
    };
    use proptest::prelude::*;

    fn stat(context: &str, api: &str, attempts: u64, obtained: u64) -> Stat {
        Stat {
            context: context.into(),
            api: api.into(),
            attempts,
            obtained,
        }
    }

    fn taken(context: &str, api: &str, op: &str, calls: u64, locks: u64) -> Locks {
        Locks {
            context: context.into(),
            api: api.into(),
            op: op.into(),
            calls,
            locks,
            rcu: 0,
            names: [("&pcp->lock".to_owned(), locks)].into(),
        }
    }

    pub fn lane(name: &str) -> LaneReport {
        let case = |name: &str| Case {
            name: name.into(),
            status: Status::Pass,
            reason: None,
            repetitions: 0,
        };
        let burst = |size, obtained| crate::facts::ktap::Burst {
            context: "task".into(),
            api: "no_locks".into(),
            size,
            obtained,
        };
        let note = |what: &str, key: &str, value: &str| Note {
            what: what.into(),
            fields: vec![(key.into(), value.into())],
        };
        LaneReport {
            name: name.into(),
            arch: "x86_64".into(),
            kernel: "7.3.4".into(),
            accel: "tcg".into(),
            duration_s: 193.4,
            promised: vec!["task".into(), "nmi".into()],
            suite: Some(Suite {
                name: "nolocks_stress".into(),
                planned: Some(2),
                cases: vec![case("task"), case("nmi")],
                stats: vec![
                    stat("task", "nolock", 2_000_000, 2_000_000),
                    stat("task", "no_locks", 1_234_567, 1_234_567),
                    stat("nmi", "no_locks", 1_000_000, 999_999),
                    stat("pressure", "no_locks", 2, 1),
                ],
                locks: vec![
                    taken("task", "nolock", "refill", 2, 64),
                    taken("task", "no_locks", "alloc", 32, 32),
                    taken("task", "no_locks", "free", 32, 0),
                    taken("nmi", "no_locks", "alloc", 32, 33),
                ],
                bursts: vec![burst(1, 1), burst(4096, 2048), burst(4096, 4096)],
                notes: vec![note("storm", "part", "pop"), note("tick", "late", "7")],
                ..Suite::default()
            }),
            queue: Some(Suite {
                name: "nolocks_queue_stress".into(),
                objects: Some(crate::facts::ktap::Objects {
                    freed: 1_234_567,
                    corrupt: 0,
                }),
                peak: Some(crate::facts::ktap::Peak {
                    cpus: 4,
                    pushed: 1_024_000,
                    listed: 3,
                    ms: 20_000,
                }),
                ..Suite::default()
            }),
            failing: None,
            kunit: vec![],
            boots: vec![BootReport {
                name: "kunit-numa".into(),
                kunit: vec![Suite {
                    name: "k".into(),
                    cases: vec![case("node")],
                    ..Suite::default()
                }],
                findings: vec![],
                debug_locks: Some(true),
            }],
            controls: vec![ControlResult {
                name: "zone-lock".into(),
                expected: "invalid-wait-context".into(),
                seen: "invalid-wait-context".into(),
                ok: true,
            }],
            findings: vec![],
            debug_locks: Some(true),
            hung: vec![],
            consoles: vec!["main".into(), "control-x".into()],
            checks: ["boots without a splat", "debug_locks", "control zone-lock"]
                .map(|what| Check::new(format!("{name}: {what}"), Ok(())))
                .into(),
        }
    }

    fn bad() -> LaneReport {
        let mut bad = lane("bad");
        let suite = bad.suite.as_mut().unwrap();
        suite.cases[1].status = Status::Fail;
        suite.cases[1].reason = Some("<b>31 of 32 & \"none\"</b>".into());
        bad.findings.push(Finding {
            rule: "bad-page".into(),
            line_no: 412,
            line: "BUG: <script>\u{1}".into(),
            reason: "why".into(),
            report: vec![],
            case: None,
        });
        bad.controls[0] = ControlResult {
            seen: String::new(),
            ok: false,
            ..bad.controls[0].clone()
        };
        bad.debug_locks = Some(false);
        bad.checks = [
            (
                "nolocks_stress: nmi",
                Exit::Test,
                "<b>31 of 32 & \"none\"</b>",
            ),
            (
                "bad-page (console line 412)",
                Exit::Splat,
                "BUG: <script>\u{1}",
            ),
            ("debug_locks", Exit::Test, "0: lockdep went silent"),
            ("control zone-lock", Exit::Test, "stayed green"),
        ]
        .map(|(what, exit, why)| Check::failed(format!("bad: {what}"), exit, why))
        .into();
        bad.checks[0].is_case = true;
        bad
    }

    pub fn run(lanes: Vec<LaneReport>) -> RunReport {
        RunReport {
            lanes,
            metadata: serde_json::json!({ "tree": "</pre>7.3.4" }),
            total_s: 600.0,
            cache: "warm".into(),
            explored: vec!["9 interleavings of the slots".into()],
        }
    }

    #[test]
    fn the_screen_says_what_was_obtained_and_is_aligned() {
        let text = screen(&run(vec![lane("good"), bad()]));
        let line = |start: &str| text.lines().find(|l| l.starts_with(start)).unwrap();
        for part in ["pass", "3 ok", "2,234,567", "1/1 red", "on", "3 min 13 s"] {
            assert!(line("good").contains(part), "{part}: {text}");
        }
        for part in ["FAIL", "2 ok, 1 failed", "0/1 red", "OFF"] {
            assert!(line("bad").contains(part), "{part}: {text}");
        }
        assert_eq!(
            line("task")
                .split_whitespace()
                .skip(1)
                .take(5)
                .collect::<String>(),
            "100/100/–"
        );
        assert!(line("nmi").contains("99.9 /    – /    –"), "{text}");
        let grid: Vec<_> = text
            .lines()
            .filter(|l| l.contains(" / ") && !l.contains(':'))
            .collect();
        // Under pressure nothing is promised.
        assert_eq!(grid.len(), 4, "{text}");
        assert!(grid[2].contains("1 /    0"), "{text}");
        assert!(grid[3].contains("1.1 /    –"), "{text}");
        let slashes = |l: &str| {
            l.chars()
                .enumerate()
                .filter(|c| c.1 == '/')
                .map(|c| c.0)
                .collect::<Vec<_>>()
        };
        for pair in [[0, 1], [2, 3]] {
            assert_eq!(slashes(grid[pair[0]]), slashes(grid[pair[1]]), "{text}");
        }
        for part in [
            "31 of 32",
            "bad-page (console line 412): BUG: ",
            "debug_locks: 0",
            "control zone-lock: stayed green",
        ] {
            assert!(
                text.lines()
                    .any(|l| l.starts_with("FAIL bad: ") && l.contains(part)),
                "{part}: {text}"
            );
        }
    }

    #[test]
    fn what_another_boot_shows_counts() {
        let mut lane = lane("l");
        lane.boots[0].debug_locks = Some(false);
        lane.boots[0].findings = bad().findings;
        lane.boots[0].kunit[0].cases[0].status = Status::Fail;
        let text = screen(&run(vec![lane.clone()]));
        for part in ["2 ok, 1 failed", " OFF "] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_total_says_what_was_there_before() {
        assert_eq!(total(&run(vec![])), "total 10 min 00 s, cache warm");
    }

    #[test]
    fn many_problems_stay_on_the_screen() {
        let mut noisy = bad();
        noisy.checks = vec![noisy.checks[1].clone(); 53];
        let text = screen(&run(vec![noisy]));
        assert_eq!(
            text.lines().filter(|l| l.starts_with("FAIL")).count(),
            PROBLEMS
        );
        assert!(text.contains("and 43 more"), "{text}");
    }

    #[test]
    fn a_lane_that_failed_before_its_tests_says_why() {
        let mut again = lane("again");
        again.suite.as_mut().unwrap().cases[0].repetitions = 2;
        assert!(screen(&run(vec![again])).contains("repeated inside a case: "));
        let mut hung = lane("hung");
        hung.suite = None;
        hung.checks = vec![Check::failed("hung", Exit::Hang, "boot hung")];
        assert!(screen(&run(vec![hung])).contains("FAIL hung: boot hung"));
    }

    #[test]
    fn shares_are_rounded_down() {
        let cases = [
            (0, 0, "–"),
            (0, 9, "0"),
            (1, 10_000, "<0.1"),
            (9_999, 10_000, "99.9"),
            (9, 9, "100"),
        ];
        for (obtained, attempts, text) in cases {
            assert_eq!(percent(obtained, attempts), text);
        }
        assert_eq!(percent(u64::MAX - 1, u64::MAX), "99.9");
    }

    #[test]
    fn locks_for_each_call_are_rounded_up() {
        for (calls, locks, text) in [
            (0, 0, "–"),
            (32, 0, "0"),
            (32, 96, "3"),
            (32, 33, "1.1"),
            (10_000, 10_001, "1.1"),
            (1, u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(
                per_call(&taken("task", "no_locks", "free", calls, locks)),
                text
            );
        }
    }

    #[test]
    fn the_page_is_escaped_and_needs_nothing_else() {
        let page = html(&run(vec![lane("good"), bad()])).unwrap();
        assert_eq!(page.matches("<svg").count(), 6);
        for word in [
            "<script",
            "<b>31",
            "</pre>7",
            " src=",
            "href=\"http",
            "@import",
            "url(",
        ] {
            assert!(!page.contains(word), "{word}");
        }
        for word in [
            "id=\"good\"",
            "id=\"bad\"",
            "without a bug found: 9 interleavings of the slots",
            "2,000,000",
            "&lt;script",
            "caught",
            "WRONG",
            "33 × &amp;pcp-&gt;lock",
            "&lt;/pre&gt;7.3.4",
            "<svg role=\"img\" aria-label=\"Pages obtained\" ",
            "<th scope=\"col\">context",
            "href=\"good/control-x/console.txt\"",
            "<th class=\"n\" scope=\"col\">late",
            "pop</td>",
            "75.0</td>",
            "boot kunit-numa",
            "total 10 min 00 s, cache warm",
        ] {
            assert!(page.contains(word), "{word}");
        }
    }

    #[test]
    fn bursts_of_a_size_count_together() {
        let suite = lane("x").suite.unwrap();
        assert_eq!(
            burst_lines(&suite, "task"),
            [("no_locks", vec![(1.0, 100.0), (4096.0, 75.0)])]
        );
    }

    #[test]
    fn junit_counts_what_failed() {
        let read = |r: &RunReport| Report::deserialize_from_str(&junit(r).unwrap()).unwrap();
        let good = read(&run(vec![lane("good")]));
        assert_eq!((good.tests, good.failures), (7, 0));
        let properties = &good.test_suites[0].properties;
        for (name, value) in [
            ("share.nmi.no_locks", "99.9"),
            ("share.task.nolock", "100"),
            ("locks.nmi.no_locks.alloc", "1.1"),
        ] {
            let found = properties.iter().find(|p| p.name.as_str() == name);
            assert_eq!(found.unwrap().value.as_str(), value);
        }
        // A case, the splat, debug_locks, the control and the verdict.
        assert_eq!(read(&run(vec![lane("good"), bad()])).failures, 5);
    }

    #[test]
    fn a_report_survives_json() {
        let report = run(vec![lane("good"), bad()]);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<RunReport>(&json).unwrap(), report);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..config() })]
        #[test]
        fn any_suite_can_be_reported(suite in suites(), name in ".*", seconds in any::<f64>()) {
            let report = run(vec![LaneReport { suite: Some(suite), name, duration_s: seconds, ..bad() }]);
            screen(&report);
            html(&report).unwrap();
            Report::deserialize_from_str(&junit(&report).unwrap()).unwrap();
        }
    }
}
