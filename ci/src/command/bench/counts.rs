// SPDX-License-Identifier: GPL-2.0
//! What the modules of `rust-module/bench/` printed.

use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// By what was done.
pub type Counts = BTreeMap<String, f64>;
/// Instructions by function, of what was done.
pub type Profile = BTreeMap<String, BTreeMap<String, u64>>;

/// What hard interrupts got of the pages that they asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    pub api: String,
    pub asked: u64,
    pub obtained: u64,
}

/// By the case that asked.
pub type Shares = BTreeMap<String, Share>;

/// How long pages were away that were freed beside a CPU that takes no part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Absence {
    pub beside: String,
    /// Nothing if they never came back.
    pub ms: Option<u64>,
}

/// All that was counted of one kernel.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Instructions an operation.
    #[serde(rename = "counts")]
    pub ops: Counts,
    /// Instructions a page.
    #[serde(default)]
    pub bursts: Vec<Burst>,
    /// Interrupts that a CPU sent to itself to have its slots filled.
    #[serde(default)]
    pub irq_works: Counts,
    #[serde(default)]
    pub profile: Profile,
    #[serde(default, skip_serializing_if = "Shares::is_empty")]
    pub shares: Shares,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absences: Vec<Absence>,
}

/// Pages taken one after the other, and then freed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Burst {
    pub api: String,
    #[serde(rename = "where")]
    pub place: String,
    pub size: u32,
    pub alloc: f64,
    pub free: f64,
}

/// What is measured in a burst, of all sizes that are promised, wherever the series is.
const PROMISED: [(&str, &str); 6] = [
    ("nowait", "task"),
    ("no_locks", "task"),
    ("no_locks", "irqs_off"),
    ("nolock", "irqs_off"),
    ("no_locks", "hardirq"),
    ("nolock", "hardirq"),
];
/// The contract's own, of a page list.
const BURST: u32 = 32;

impl Counted {
    /// All by one name each.
    pub fn all(&self) -> Counts {
        let bursts = self.bursts.iter().flat_map(|b| {
            let name = format!("{} in {} of {}", b.api, b.place, b.size);
            [
                (format!("{name}, alloc"), b.alloc),
                (format!("{name}, free"), b.free),
            ]
        });
        let works = self.irq_works.iter();
        let works = works.map(|(op, n)| (format!("irq_works of {op}"), *n));
        let ops = self.ops.iter().map(|(op, n)| (op.clone(), *n));
        ops.chain(bursts).chain(works).collect()
    }

    /// That no burst lacked a page which had to be there.
    pub fn check_bursts(&self) -> Result<()> {
        for (api, place) in PROMISED {
            let is_there = |b: &Burst| (&*b.api, &*b.place, b.size) == (api, place, BURST);
            let why = || format!("{api} in {place}: no burst of {BURST} was whole each time");
            ensure!(self.bursts.iter().any(is_there), why());
        }
        Ok(())
    }

    pub fn read(console: &str) -> Result<Counted> {
        let op = Regex::new(r"# bench: op=(\w+) ops=(\d+) ns=(\d+)").expect("a constant pattern");
        let irq_work =
            Regex::new(r"# irq_works: op=(\w+) ops=\d+ n=(\d+)").expect("a constant pattern");
        let burst =
            Regex::new(r"# burst: api=(\w+) where=(\w+) size=(\d+) alloc_ns=(\d+) free_ns=(\d+)")
                .expect("a constant pattern");
        let number = |digits: &str| digits.parse::<f64>().context("digits are a number");
        let counted = Counted {
            ops: op
                .captures_iter(console)
                .map(|c| Ok((c[1].to_owned(), number(&c[3])? / number(&c[2])?)))
                .collect::<Result<_>>()?,
            bursts: burst
                .captures_iter(console)
                .map(|c| {
                    let size = number(&c[3])?;
                    Ok(Burst {
                        api: c[1].to_owned(),
                        place: c[2].to_owned(),
                        size: size as u32,
                        alloc: number(&c[4])? / size,
                        free: number(&c[5])? / size,
                    })
                })
                .collect::<Result<_>>()?,
            irq_works: irq_work
                .captures_iter(console)
                .map(|c| Ok((c[1].to_owned(), number(&c[2])?)))
                .collect::<Result<_>>()?,
            ..Counted::default()
        };
        ensure!(
            !counted.ops.is_empty(),
            "nothing was counted: see console.txt"
        );
        Ok(counted)
    }
}

/// What became of pages that could not be freed at once: freed soon with the series; without it, left until
/// somebody else frees one.
pub fn check_stranded(console: &str, with: bool) -> Result<()> {
    let line = Regex::new(r"# strand: deferred=(\d+) stranded=(\d+) of=(\d+)")
        .expect("a constant pattern")
        .captures(console)
        .context("nolocks_strand said nothing")?;
    println!("{}", &line[0]);
    let number = |i: usize| line[i].parse::<u32>().context("digits are a number");
    let (deferred, stranded, of) = (number(1)?, number(2)?, number(3)?);
    ensure!(deferred == of, "only {deferred} of {of} were deferred");
    match with {
        true => ensure!(stranded == 0, "{stranded} of {of} were stranded"),
        false => ensure!(
            stranded != 0,
            "none was stranded, so that the series would be proved by nothing"
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[ 1.0] nolocks_bench_pages: # bench: op=gfp_kernel ops=100 ns=73800\n\
        [ 1.0] nolocks_bench_pages: # bench: op=no_locks ops=100 ns=30050\n\
        [ 1.0] nolocks_bench_pages: # burst: api=no_locks where=nmi size=4 alloc_ns=800 free_ns=404\n\
        [ 1.0] x: # irq_works: op=failing ops=100 n=37\n";

    #[test]
    fn instructions_are_those_of_one_operation_or_one_page() {
        let counted = Counted::read(CONSOLE).unwrap();
        assert_eq!(counted.ops["gfp_kernel"], 738.0);
        assert_eq!(counted.ops["no_locks"], 300.5);
        let burst = &counted.bursts[0];
        assert_eq!((burst.place.as_str(), burst.size), ("nmi", 4));
        assert_eq!((burst.alloc, burst.free), (200.0, 101.0));
        assert_eq!(counted.irq_works["failing"], 37.0);
        assert!(Counted::read("silence").is_err());
        let all = counted.all();
        assert_eq!(all["no_locks in nmi of 4, free"], 101.0);
        assert_eq!(all["irq_works of failing"], 37.0);
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn a_burst_that_lacked_pages_is_missed() {
        let line = |(api, place): (&str, &str)| {
            format!("# burst: api={api} where={place} size=32 alloc_ns=1 free_ns=1\n")
        };
        let bursts = |n: usize| {
            let lines: String = PROMISED[..n].iter().copied().map(line).collect();
            let console = format!("# bench: op=x ops=1 ns=1\n{lines}");
            Counted::read(&console).unwrap().check_bursts()
        };
        bursts(PROMISED.len()).unwrap();
        let why = bursts(PROMISED.len() - 1).unwrap_err().to_string();
        assert!(why.starts_with("nolock in hardirq"), "{why}");
    }

    #[test]
    fn mainline_must_strand_pages_and_the_series_must_not() {
        let line = |stranded| format!("[ 1] x: # strand: deferred=20 stranded={stranded} of=20");
        assert!(check_stranded(&line(20), false).is_ok() && check_stranded(&line(0), true).is_ok());
        assert!(
            check_stranded(&line(0), false).is_err() && check_stranded(&line(1), true).is_err()
        );
        assert!(check_stranded("silence", true).is_err());
        assert!(check_stranded(&line(0).replace("deferred=20", "deferred=0"), true).is_err());
    }
}
