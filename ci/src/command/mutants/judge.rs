// SPDX-License-Identifier: GPL-2.0
//! What a boot shows of the bugs that were in it.

use crate::command::mutants::list::Mutant;
use crate::command::mutants::tried::Fate;
use crate::facts::boot::BootFacts;
use crate::facts::ending::Ending;
use crate::facts::scan::{Finding, Rules};
use crate::facts::suite::{Case, Status};
use anyhow::Result;
use regex::Regex;

/// What a boot shows of its mutants, the first at least. After a report of the kernel's nothing is certain any
/// more, least of all that lockdep still looks: who comes later has another boot, as has who was the last to
/// begin, unless it was the first.
pub fn judge_batch<'a>(
    rules: &Rules,
    batch: &[&'a Mutant],
    boot: &BootFacts,
) -> Result<Vec<(&'a Mutant, Fate)>> {
    let not_ok = Regex::new(r"(?m): not ok \d+ (\S+)")?;
    let skipped = Regex::new(r"(?m): ok \d+ \S+ # SKIP (.*)$")?;
    let mut all = Vec::new();
    for (nth, mutant) in batch.iter().enumerate() {
        let Some(case) = boot.case(&mutant.name) else {
            break;
        };
        let (part, rc) = (&case.said, case.rc.as_deref());
        // Of a case that did not end, all that is in no other's part.
        let is_its = |f: &&Finding| f.case.as_ref().map_or(rc.is_none(), |c| *c == mutant.name);
        let mut findings = boot.findings.iter().filter(is_its);
        let report = findings.find(|f| rules.is_report(f));
        if nth > 0 && (rc.is_none() || report.is_some()) {
            break;
        }
        let failed: Vec<&str> = not_ok
            .captures_iter(part)
            .map(|c| c.extract::<1>().1[0])
            .collect();
        let fate = if !failed.is_empty() {
            Fate::Caught(failed.join(", "))
        } else if let Some(report) = report {
            Fate::Caught(format!("{}: {}", report.rule, report.line.trim()))
        } else if let Some(rc) = rc {
            if let Some(why) = skipped.captures(part) {
                Fate::Broken(format!("its case was skipped: {}", &why[1]))
            } else if !part.contains("KTAP version 1") {
                Fate::Broken("the module could not be loaded".into())
            } else if rc == "0" {
                Fate::Survived
            } else {
                Fate::Caught("a module that cannot be unloaded".into())
            }
        } else {
            match boot.ending {
                Ending::Hung(..) => Fate::Caught("a case that never ends".into()),
                _ => Fate::Caught("the machine's end".into()),
            }
        };
        all.push((*mutant, fate));
        if report.is_some() || rc.is_none() {
            break;
        }
    }
    Ok(all)
}

/// What a boot shows of the cases that KUnit runs there.
pub fn judge_kunit(rules: &Rules, boot: &BootFacts) -> Fate {
    let report = boot.findings.iter().find(|f| rules.is_report(f));
    let suites = boot.kunit.as_deref().unwrap_or_default();
    let cases: Vec<&Case> = suites.iter().flat_map(|suite| &suite.cases).collect();
    let is = |status| move |case: &&&Case| case.status == status;
    if let Some(case) = cases.iter().find(is(Status::Fail)) {
        Fate::Caught(case.name.clone())
    } else if let Some(report) = report {
        Fate::Caught(format!("{}: {}", report.rule, report.line.trim()))
    } else if cases.iter().any(|case| case.status == Status::Pass) {
        Fate::Survived
    } else {
        match boot.ending {
            Ending::Done => Fate::Broken("no case of KUnit's ran".into()),
            Ending::Hung(..) => Fate::Caught("a case that never ends".into()),
            Ending::Died(_) => Fate::Caught("the machine's end".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::boot::tests::boot_facts;
    use crate::facts::ending::Phase;
    use std::fs;
    use std::time::Duration;

    fn mutant(name: &str) -> Mutant {
        toml::from_str(&format!(
            "name = \"{name}\"\nfile = \"f\"\nfrom = \"a\"\nto = \"b\"\ncase = \"task\""
        ))
        .unwrap()
    }

    fn verdicts(console: &str, ending: Ending) -> Vec<Fate> {
        let all = ["m1", "m2", "m3"].map(mutant);
        let batch: Vec<&Mutant> = all.iter().collect();
        let rules = Rules::builtin().unwrap();
        let facts = boot_facts(console);
        let judged = judge_batch(&rules, &batch, &BootFacts { ending, ..facts }).unwrap();
        judged.into_iter().map(|(_, fate)| fate).collect()
    }

    fn part(name: &str, says: &str, rc: &str) -> String {
        format!(
            "[ 1.0] NOLOCKS: case {name} begin\n[ 1.0] q: KTAP version 1\n{says}[ 1.0] NOLOCKS: case {name} rc={rc}\n"
        )
    }

    const BUG: &str = "[ 1.0] BUG: scheduling while atomic: a/0/1/0x2\n";

    #[test]
    fn a_mutant_is_judged_by_its_own_part() {
        let ok = "[ 1.0] q: ok 1 task\n";
        let not_ok = "[ 1.0] q: not ok 1 task\n";
        let skip = "[ 1.0] q: ok 1 task # SKIP why\n";
        let console = part("m1", ok, "0") + &part("m2", not_ok, "1") + &part("m3", skip, "0");
        let seen = verdicts(&console, Ending::Done);
        assert_eq!(seen[..2], [Fate::Survived, Fate::Caught("task".into())]);
        assert!(matches!(&seen[2], Fate::Broken(why) if why.contains("why")));
        let unloaded = part("m1", ok, "1");
        assert!(matches!(
            verdicts(&unloaded, Ending::Done)[..],
            [Fate::Caught(_)]
        ));
        let unknown = unloaded.replace("KTAP", "what");
        assert!(matches!(
            verdicts(&unknown, Ending::Done)[..],
            [Fate::Broken(_)]
        ));
    }

    #[test]
    fn after_a_report_or_an_end_the_others_have_another_boot() {
        let ok = "[ 1.0] q: ok 1 task\n";
        let first = part("m1", BUG, "0") + &part("m2", ok, "0");
        assert!(matches!(
            verdicts(&first, Ending::Done)[..],
            [Fate::Caught(_)]
        ));
        let later = part("m1", ok, "0") + &part("m2", BUG, "0") + &part("m3", ok, "0");
        assert_eq!(verdicts(&later, Ending::Done), [Fate::Survived]);
        let died = "[ 1.0] NOLOCKS: case m1 begin\n";
        let hung = Ending::Hung(crate::facts::ending::Phase::Run, Duration::ZERO);
        assert!(matches!(verdicts(died, hung)[..], [Fate::Caught(_)]));
        let seen = verdicts(&format!("{died}{BUG}"), hung);
        assert!(matches!(&seen[..], [Fate::Caught(why)] if why.contains("scheduling")));
        let died = part("m1", ok, "0") + &died.replace("m1", "m2");
        assert_eq!(verdicts(&died, hung), [Fate::Survived]);
        assert!(verdicts("", hung).is_empty());
    }

    #[test]
    fn a_case_of_kunit_must_fail() {
        let rules = Rules::builtin().unwrap();
        let fate = |line: &str, console: &str, ending| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("console.txt"), console).unwrap();
            fs::create_dir(dir.path().join("out")).unwrap();
            let suite = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n";
            let not = if line.contains("not") { "not " } else { "" };
            let text = format!("{suite}    {line}\n{not}ok 1 s\n");
            let text = if line.is_empty() { "" } else { &text };
            fs::write(dir.path().join("out/kunit.txt"), text).unwrap();
            let facts = BootFacts::read(dir.path(), &rules).unwrap();
            judge_kunit(&rules, &BootFacts { ending, ..facts })
        };
        let caught = |by: &str| Fate::Caught(by.to_owned());
        assert_eq!(fate("not ok 1 a", "", Ending::Done), caught("a"));
        assert_eq!(fate("ok 1 a", "", Ending::Done), Fate::Survived);
        assert!(matches!(fate("ok 1 a", BUG, Ending::Done), Fate::Caught(_)));
        assert!(matches!(
            fate("ok 1 a # SKIP why", "", Ending::Done),
            Fate::Broken(_)
        ));
        assert!(matches!(fate("", "", Ending::Done), Fate::Broken(_)));
        assert!(matches!(
            fate("", BUG, Ending::Died(Phase::Run)),
            Fate::Caught(_)
        ));
    }
}
