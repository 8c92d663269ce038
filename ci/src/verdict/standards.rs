// SPDX-License-Identifier: GPL-2.0
//! What a run is judged by beside its lane: kept in its folder, so that a later judgement is by the same.

use crate::base::cache::write_atomic;
use crate::base::exit::{Exit, OrExit};
use crate::facts::scan::Rules;
use crate::lane::cases::Cases;
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

pub const CASES: &str = "cases.toml";
pub const RULES: &str = "splats.toml";

pub struct Standards {
    pub cases: Cases,
    pub rules: Rules,
}

impl Standards {
    pub fn builtin() -> Result<Standards> {
        Ok(Standards {
            cases: Cases::builtin(),
            rules: Rules::builtin()?,
        })
    }

    pub fn keep(&self, folder: &Path) -> Result<()> {
        write_atomic(&folder.join(CASES), Cases::TEXT)?;
        write_atomic(&folder.join(RULES), Rules::TEXT)
    }

    /// Those of the run; today's where it is of a time when none were kept, which is said.
    pub fn kept(folder: &Path) -> Result<Standards> {
        let text = |name: &str, todays: &str| match fs::read_to_string(folder.join(name)) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                eprintln!("note: {} has no {name}: today's is used", folder.display());
                Ok(todays.to_owned())
            }
            text => text.with_context(|| format!("cannot read {name}")),
        };
        let cases = Cases::parse(&text(CASES, Cases::TEXT)?);
        let rules = Rules::parse(&text(RULES, Rules::TEXT)?);
        let of = || format!("of {}", folder.display());
        Ok(Standards {
            cases: cases.context(CASES).with_context(of).or_exit(Exit::Usage)?,
            rules: rules.context(RULES).with_context(of).or_exit(Exit::Usage)?,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Those of a time with another suite and another rule, and with fewer cases.
    pub fn keep_older(folder: &Path) {
        fs::write(
            folder.join(CASES),
            "nolocks_stress = [\"task\"]\nolder = [\"a\"]\n",
        )
        .unwrap();
        let fire = "[[rule]]\nid = \"fire\"\npattern = \"on fire\"\nreason = \"older\"\n\n[[rule]]";
        fs::write(
            folder.join(RULES),
            Rules::TEXT.replacen("[[rule]]", fire, 1),
        )
        .unwrap();
    }

    #[test]
    fn a_run_is_judged_by_what_was_kept_with_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Standards::kept(dir.path()).unwrap().rules.has("bad-page"));
        keep_older(dir.path());
        let kept = Standards::kept(dir.path()).unwrap();
        assert_eq!(kept.cases.of("older"), ["a"]);
        assert_eq!(kept.cases.of("nolocks_stress"), ["task"]);
        assert!(kept.rules.has("fire") && kept.rules.has("bad-page"));
        fs::write(dir.path().join(RULES), "no rules").unwrap();
        assert!(Standards::kept(dir.path()).is_err());
    }
}
