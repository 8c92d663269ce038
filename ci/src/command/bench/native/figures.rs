// SPDX-License-Identifier: GPL-2.0
//! What `rust-module/bench/native/` printed: each figure many times, and here its middle and how far it spreads.

use crate::report::latency::Waits;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of so many measurements at least.
pub const PAIRS: usize = 9;
/// A figure whose middle half spreads over more of its median than this says little.
const NOISY: f64 = 0.2;

/// Of figures measured again and again: the one in the middle, and what part of it the distance between the
/// quartiles is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Middle {
    pub median: f64,
    pub spread: f64,
}

impl Middle {
    pub fn of(mut figures: Vec<f64>) -> Middle {
        figures.sort_by(f64::total_cmp);
        let at = |part: f64| figures[((figures.len() - 1) as f64 * part).round() as usize];
        let median = at(0.5);
        let spread = match median {
            0.0 => 0.0,
            median => (at(0.75) - at(0.25)) / median,
        };
        Middle { median, spread }
    }

    pub fn is_noisy(&self) -> bool {
        self.spread > NOISY
    }
}

/// What became of so many objects of a size, from so many CPUs, through an API.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Freed {
    pub size: u64,
    pub objects: u64,
    pub cpus: u64,
    pub push: Side,
    pub kfree_rcu: Side,
    /// Of the queue's objects a second to `kfree_rcu()`'s, pair by pair.
    pub ratio: Middle,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Objects a second, from the first allocation until all are free.
    pub freed: Middle,
    /// Nanoseconds from the first allocation until the last was handed over, for each object of a CPU.
    pub handed: Middle,
    pub peak_kib: Middle,
    pub grace_periods: Middle,
}

impl Freed {
    pub fn is_noisy(&self) -> bool {
        [self.push.freed, self.kfree_rcu.freed, self.ratio]
            .iter()
            .any(Middle::is_noisy)
    }
}

/// What was obtained of a burst under a raw spinlock.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    pub api: String,
    pub size: u64,
    /// Of a hundred.
    pub obtained: Middle,
}

/// How long objects waited: how many 2^n microseconds or more, but less than twice that.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    pub api: String,
    pub size: u64,
    pub log2_us: Vec<(u32, u64)>,
}

/// Microseconds, and the KiB in use then beyond what was before.
pub type Memory = BTreeMap<String, Vec<(u64, u64)>>;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// What a pair of `local_irq_save()` and `local_irq_restore()` takes, by the number of CPUs.
    pub irq_toggle_ns: BTreeMap<u64, f64>,
    pub freed: Vec<Freed>,
    pub shares: Vec<Share>,
    pub waits: Vec<Wait>,
    pub memory: Memory,
}

/// The API that a line is of, and its numbers by name.
struct Line<'a> {
    api: &'a str,
    numbers: BTreeMap<&'a str, u64>,
}

impl Line<'_> {
    fn number(&self, name: &str) -> Result<u64> {
        let number = self.numbers.get(name);
        number.copied().with_context(|| format!("no {name}="))
    }

    /// Of lines that measured the same.
    fn middle(lines: &[Self], figure: impl Fn(&Self) -> Result<f64>) -> Result<Middle> {
        ensure!(lines.len() >= PAIRS, "measured {} times only", lines.len());
        Ok(Middle::of(lines.iter().map(figure).collect::<Result<_>>()?))
    }
}

fn lines<'a>(console: &'a str, what: &str) -> Vec<Line<'a>> {
    let pattern = format!(r"(?m)# {what}: (.*)$");
    let pattern = Regex::new(&pattern).expect("a constant pattern");
    let texts = pattern.captures_iter(console).filter_map(|c| c.get(1));
    let line = |text: &'a str| {
        let fields = || text.split_whitespace().filter_map(|f| f.split_once('='));
        Line {
            api: fields().find(|f| f.0 == "api").map_or("", |f| f.1),
            numbers: fields()
                .filter_map(|f| Some((f.0, f.1.parse().ok()?)))
                .collect(),
        }
    };
    texts.map(|text| line(text.as_str())).collect()
}

/// Lines by what they measured.
type Groups<'a, K> = BTreeMap<K, Vec<Line<'a>>>;

fn group<'a, K: Ord>(
    lines: Vec<Line<'a>>,
    key: impl Fn(&Line<'a>) -> Result<K>,
) -> Result<Groups<'a, K>> {
    let mut groups = Groups::new();
    for line in lines {
        groups.entry(key(&line)?).or_default().push(line);
    }
    Ok(groups)
}

fn freed(console: &str) -> Result<Vec<Freed>> {
    let groups = group(lines(console, "freed"), |l| {
        Ok((l.number("cpus")?, l.number("size")?, l.number("objects")?))
    })?;
    let row = |((cpus, size, objects), lines): (_, Vec<Line<'_>>)| {
        let (push, kfree_rcu): (Vec<_>, Vec<_>) = lines.into_iter().partition(|l| l.api == "push");
        let rate = |l: &Line<'_>| Ok(objects as f64 * 1e9 / l.number("ns")? as f64);
        let side = |lines: &[Line<'_>]| -> Result<Side> {
            let figure = |name: &'static str, part: f64| {
                Line::middle(lines, move |l| Ok(l.number(name)? as f64 * part))
            };
            Ok(Side {
                freed: Line::middle(lines, rate)?,
                handed: figure("handed_ns", cpus as f64 / objects as f64)?,
                peak_kib: figure("peak_kib", 1.0)?,
                grace_periods: figure("grace_periods", 1.0)?,
            })
        };
        let ratios = push.iter().zip(&kfree_rcu);
        let ratios = ratios.map(|(push, other)| Ok(rate(push)? / rate(other)?));
        let ratio = Middle::of(ratios.collect::<Result<_>>()?);
        let (push, kfree_rcu) = (side(&push)?, side(&kfree_rcu)?);
        Ok(Freed {
            size,
            objects,
            cpus,
            push,
            kfree_rcu,
            ratio,
        })
    };
    groups.into_iter().map(row).collect()
}

fn shares(console: &str) -> Result<Vec<Share>> {
    let groups = group(lines(console, "share"), |l| Ok((l.api, l.number("size")?)))?;
    let row = |((api, size), lines): ((&str, u64), Vec<Line<'_>>)| {
        let obtained = |l: &Line<'_>| Ok(100.0 * l.number("obtained")? as f64 / size as f64);
        Ok(Share {
            api: api.to_owned(),
            size,
            obtained: Line::middle(&lines, obtained)?,
        })
    };
    groups.into_iter().map(row).collect()
}

fn waits(console: &str) -> Result<Vec<Wait>> {
    let groups = group(lines(console, "wait"), |l| Ok((l.number("size")?, l.api)))?;
    let row = |((size, api), lines): ((u64, &str), Vec<Line<'_>>)| {
        let bucket = |l: &Line<'_>| Ok((l.number("log2_us")? as u32, l.number("objects")?));
        let log2_us = lines.iter().map(bucket).collect::<Result<_>>()?;
        Ok(Wait {
            api: api.to_owned(),
            size,
            log2_us,
        })
    };
    groups.into_iter().map(row).collect()
}

fn memory(console: &str) -> Result<Memory> {
    let mut memory = Memory::new();
    for line in lines(console, "memory") {
        let point = (line.number("us")?, line.number("kib")?);
        memory.entry(line.api.to_owned()).or_default().push(point);
    }
    Ok(memory)
}

impl Figures {
    pub fn read(console: &str) -> Result<Figures> {
        let toggles = lines(console, "toggle");
        let toggles = toggles.iter();
        let toggles = toggles.map(|l| Ok((l.number("cpus")?, l.number("ps")? as f64 / 1e3)));
        let figures = Figures {
            irq_toggle_ns: toggles.collect::<Result<_>>()?,
            freed: freed(console)?,
            shares: shares(console)?,
            waits: waits(console)?,
            memory: memory(console)?,
        };
        ensure!(
            !figures.freed.is_empty() && !figures.shares.is_empty() && !figures.waits.is_empty(),
            "not all was measured"
        );
        Ok(figures)
    }

    /// All that were measured again and again, by one name each.
    fn middles(&self) -> BTreeMap<String, Middle> {
        let freed = self.freed.iter().flat_map(|f| {
            let what = format!("{} of {} bytes on {}", f.objects, f.size, f.cpus);
            let sides = [("push", &f.push), ("kfree_rcu", &f.kfree_rcu)];
            let sides = sides.into_iter().flat_map(move |(api, side)| {
                [
                    (format!("{what}, freed a second by {api}"), side.freed),
                    (format!("{what}, ns each by {api}"), side.handed),
                    (format!("{what}, peak KiB of {api}"), side.peak_kib),
                    (
                        format!("{what}, grace periods of {api}"),
                        side.grace_periods,
                    ),
                ]
            });
            sides.collect::<Vec<_>>()
        });
        let share = |s: &Share| (format!("% of {} by {}", s.size, s.api), s.obtained);
        freed.chain(self.shares.iter().map(share)).collect()
    }

    /// What half of them, and almost all, waited less than.
    fn waited(&self) -> BTreeMap<String, String> {
        let waited = self.waits.iter().flat_map(|w| {
            let waits = Waits::new(&w.api, &w.log2_us);
            [50, 99].map(|percent| {
                let what = format!("{percent} % of {} bytes by {}", w.size, w.api);
                (what, waits.below(percent))
            })
        });
        waited.collect()
    }

    /// What is other than it was by more than it spreads anyway, and by more than a noisy row would: a line for each.
    pub fn moved(&self, old: &Figures) -> Vec<String> {
        let by = |old: &Middle, new: &Middle| {
            let most = NOISY.max(old.spread).max(new.spread) * old.median;
            let is_other = (new.median - old.median).abs() > most;
            is_other.then(|| format!("{:.0} -> {:.0}", old.median, new.median))
        };
        let other = |old: &String, new: &String| (old != new).then(|| format!("{old} -> {new}"));
        let middles = compare(&old.middles(), &self.middles(), by);
        [middles, compare(&old.waited(), &self.waited(), other)].concat()
    }
}

/// A line for what is other by `by`, or only on one side.
fn compare<T>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    by: impl Fn(&T, &T) -> Option<String>,
) -> Vec<String> {
    let now = new.iter().filter_map(|(name, new)| match old.get(name) {
        Some(old) => by(old, new).map(|moved| format!("native: {name} {moved}")),
        None => Some(format!("native: {name} was measured only now")),
    });
    let then = old.keys().filter(|name| !new.contains_key(*name));
    let then = then.map(|name| format!("native: {name} was measured only then"));
    now.chain(then).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What the module prints, of nine pairs.
    pub fn console(kfree_rcu_ns: impl Fn(u64) -> u64) -> String {
        let mut text = "[ 1.0] nolocks_bench_native: # toggle: cpus=2 ps=380500\n".to_owned();
        for nth in 0..PAIRS as u64 {
            for (api, ns) in [("push", 1_000_000), ("kfree_rcu", kfree_rcu_ns(nth))] {
                text += &format!(
                    "[ 1.0] nolocks_bench_native: # freed: api={api} size=64 objects=10000 cpus=2 \
                    handed_ns=500000 ns={ns} peak_kib=2048 grace_periods=3\n"
                );
            }
            text += "[ 1.0] x: # share: api=no_locks size=64 obtained=32\n";
        }
        text += "x: # wait: api=push size=64 log2_us=14 objects=10\n\
            x: # wait: api=push size=64 log2_us=16 objects=1\n\
            x: # memory: api=push us=1 kib=4\nx: # memory: api=push us=2 kib=8\n";
        text
    }

    #[test]
    fn a_figure_is_the_median_and_the_spread_is_of_the_middle_half() {
        let middle = Middle::of(vec![9.0, 1.0, 10.0, 11.0, 1000.0]);
        assert_eq!((middle.median, middle.spread), (10.0, 0.2));
        assert!(!middle.is_noisy());
        assert!(Middle::of(vec![1.0, 7.0, 10.0, 11.0, 12.0]).is_noisy());
        assert_eq!(Middle::of(vec![0.0; 9]).spread, 0.0);
    }

    #[test]
    fn what_was_printed_is_read() {
        let figures = Figures::read(&console(|_| 2_000_000)).unwrap();
        assert_eq!(figures.irq_toggle_ns[&2], 380.5);
        let [row] = figures.freed.as_slice() else {
            panic!("{:?}", figures.freed)
        };
        assert_eq!((row.size, row.objects, row.cpus), (64, 10_000, 2));
        assert_eq!((row.push.freed.median, row.ratio.median), (1e7, 2.0));
        assert_eq!(row.push.handed.median, 100.0);
        assert_eq!(row.kfree_rcu.grace_periods.median, 3.0);
        assert!(!row.is_noisy());
        let share = &figures.shares[0];
        assert_eq!((share.size, share.obtained.median), (64, 50.0));
        assert_eq!(figures.waits[0].log2_us, [(14, 10), (16, 1)]);
        assert_eq!(figures.memory["push"], [(1, 4), (2, 8)]);
    }

    #[test]
    fn a_noisy_row_is_known_and_one_of_few_pairs_is_none() {
        let noisy = Figures::read(&console(|nth| 1_000_000 * (nth + 1))).unwrap();
        assert!(noisy.freed[0].is_noisy());
        let few = console(|_| 1).replacen("obtained=32", "", 1);
        assert!(Figures::read(&few).is_err());
        let few = console(|_| 1).replacen("api=kfree_rcu", "api=push", 1);
        let why = Figures::read(&few).unwrap_err().to_string();
        assert_eq!(why, "measured 8 times only");
        assert!(Figures::read("silence").is_err());
    }

    #[test]
    fn what_moved_by_more_than_it_spreads_is_said() {
        let of = |ns: u64| Figures::read(&console(|_| ns)).unwrap();
        let old = of(1_000_000);
        assert_eq!(of(1_150_000).moved(&old), [""; 0]);
        let moved = of(2_000_000).moved(&old);
        assert_eq!(
            moved,
            ["native: 10000 of 64 bytes on 2, freed a second by kfree_rcu 10000000 -> 5000000"]
        );
        let mut other = of(1_000_000);
        other.shares.clear();
        other.waits[0].log2_us = vec![(17, 11)];
        let moved = other.moved(&old).join("\n");
        assert!(
            moved.contains("% of 64 by no_locks was measured only then"),
            "{moved}"
        );
        assert!(
            moved.contains("50 % of 64 bytes by push 32 ms -> 262 ms"),
            "{moved}"
        );
    }
}
