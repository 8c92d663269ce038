// SPDX-License-Identifier: GPL-2.0
//! Progress of long steps: a bar on a terminal, a line now and then in a log.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const LOG_EVERY: Duration = Duration::from_secs(30);

/// Guests beside each other have a line each.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

pub struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    start: Instant,
    last: Instant,
    done: u64,
    total: u64,
}

impl Progress {
    /// `total` is what an earlier run counted, or 0 where nothing is known.
    pub fn new(what: impl Into<String>, total: u64) -> Progress {
        let what = what.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = if total > 0 {
                ProgressBar::new(total)
            } else {
                ProgressBar::new_spinner()
            };
            let style = if total > 0 {
                "{prefix} [{bar:32}] {pos}/{len} {elapsed} {wide_msg}"
            } else {
                "{prefix} {spinner} {elapsed} {wide_msg}"
            };
            let bar = BARS.add(bar);
            bar.set_style(ProgressStyle::with_template(style).expect("a constant template"));
            bar.set_prefix(what.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() {
            say(&format!("{what} ..."));
        }
        let now = Instant::now();
        Progress {
            what,
            bar,
            start: now,
            last: now,
            done: 0,
            total,
        }
    }

    pub fn step(&mut self, message: &str) {
        self.done += 1;
        self.say(message);
    }

    pub fn say(&mut self, message: &str) {
        match &self.bar {
            Some(bar) => {
                // More lines than last time only means that the estimate was low.
                if self.total > 0 && self.done > self.total {
                    bar.set_length(self.done);
                }
                bar.set_position(self.done);
                bar.set_message(message.to_owned());
            }
            None if self.last.elapsed() >= LOG_EVERY => {
                self.last = Instant::now();
                let share = match (self.done, self.total) {
                    (0, _) => String::new(),
                    (n, 0) => format!("{n} "),
                    (n, t) => format!("{n}/{} ", t.max(n)),
                };
                say(&format!(
                    "{} {share}{} {message}",
                    self.what,
                    span(self.start.elapsed())
                ));
            }
            None => {}
        }
    }

    pub fn count(&self) -> u64 {
        self.done
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn finish(self, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(&format!(
            "{}: {result} ({})",
            self.what,
            span(self.start.elapsed())
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            BARS.remove(bar);
        }
    }
}

/// A line for the user, above the bars that there are.
pub fn say(line: &str) {
    BARS.suspend(|| eprintln!("{line}"));
}

pub fn span(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{:.1} s", d.as_secs_f64()),
        _ => format!("{} min {:02} s", s / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_readable() {
        assert_eq!(span(Duration::from_millis(2540)), "2.5 s");
        assert_eq!(span(Duration::from_secs(125)), "2 min 05 s");
    }
}
