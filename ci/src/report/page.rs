// SPDX-License-Identifier: GPL-2.0
//! The run as a page.

use crate::facts::suite::{Locks, Note, Stat, Status, Suite};
use crate::report::latency;
use crate::report::numbers::{per_call, percent, thousands, time};
use crate::report::pictures::{bars, burst_lines, bursts, legend};
use crate::report::run::{LaneReport, RunReport, apis, unique};
use crate::report::screen::{say_models, say_queue, say_total};
use crate::source::tree::DIFFERENCE;
use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// What `make decode` writes beside a console.
pub const DECODED: &str = "console.decoded.txt";

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
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
                    td { (l.say_cases()) }
                    td .n { (thousands(l.obtained())) }
                    td .n { (l.say_controls_caught()) }
                    td .n { (l.all_findings().count()) }
                    td .n { (l.say_lockdep()) }
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
            @if let Some(note) = lane.say_repetitions() { p { b { "Note: " } (note) } }
            p { "Consoles: " @for boot in &lane.consoles {
                a href={ (lane.name) "/" (boot) "/console.txt" } { (boot) } " "
                @if lane.decoded.contains(boot) {
                    "(" a href={ (lane.name) "/" (boot) "/" (DECODED) } { "by file and line" } ") "
                }
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
            @if let Some(suite) = &lane.queue { h3 { "Queue" } p { (say_queue(suite)) } (latency::section(suite)?) (notes(suite)) }
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

/// A page that needs nothing but itself.
pub fn render_page(report: &RunReport) -> Result<String> {
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
                p .dim { (say_total(report.total_s, &report.cache)) }
                @for (lane, what) in report.changed() {
                    p { (lane) ": " (what) " (" a href={ (lane) "/" (DIFFERENCE) } { (DIFFERENCE) } ")" }
                }
                @if let Some(models) = say_models(report) { p .dim { (models) } }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up::{bad, lane, run};

    #[test]
    fn the_page_is_escaped_and_needs_nothing_else() {
        let page = render_page(&run(vec![lane("good"), bad()])).unwrap();
        assert_eq!(page.matches("<svg").count(), 6);
        for word in [
            "<script",
            "<b>31",
            "</pre>7",
            " src=",
            "href=\"http",
            "@import",
            "url(",
            "main/console.decoded.txt",
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
            "href=\"good/control-x/console.decoded.txt\"",
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
    fn a_kernel_that_is_not_of_the_series_as_it_is_says_so() {
        let mut run = run(vec![lane("as-it-is"), lane("edited"), lane("work")]);
        run.metadata = serde_json::json!([
            { "lane": "as-it-is", "changes": null },
            { "lane": "edited", "changes": { "had_series": true } },
            { "lane": "work", "changes": { "had_series": false } },
        ]);
        let page = render_page(&run).unwrap();
        let link = |lane| format!("(<a href=\"{lane}/local.diff\">local.diff</a>)");
        for (lane, what) in [
            ("edited", "the series with changes of the tree's own"),
            ("work", "patches/ on top of work that was not committed"),
        ] {
            let text = format!("<p>{lane}: {what} {}</p>", link(lane));
            assert!(page.contains(&text), "{text}");
        }
        assert!(!page.contains(&link("as-it-is")));
    }
}
