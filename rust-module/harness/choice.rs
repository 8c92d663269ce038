// SPDX-License-Identifier: GPL-2.0

//! Which cases a list of names stands for, as in `nmi,*irq*`: the modules' `case=`, and `CASE=` of
//! the runner, into which this file is compiled as well, and tested.

/// Whether some pattern of `list` stands for `name`. An empty list stands for all names.
pub(crate) fn is_chosen(list: &str, name: &str) -> bool {
    list.is_empty() || list.split(',').any(|pattern| stands_for(pattern, name))
}

/// The first pattern of `list` that stands for none of `names`.
pub(crate) fn unknown<'a, 'b>(
    list: &'a str,
    names: impl Iterator<Item = &'b str> + Clone,
) -> Option<&'a str> {
    let is_unknown = |pattern: &&str| !names.clone().any(|name| stands_for(pattern, name));
    list.split(',')
        .filter(|_| !list.is_empty())
        .find(is_unknown)
}

/// `*` stands for any text and `?` for any one byte.
fn stands_for(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Behind the last `*`, and how much of the name is behind what that stands for.
    let mut star = None;

    while let Some(byte) = name.get(seen) {
        match (pattern.get(at), star) {
            (Some(b'*'), _) => {
                at += 1;
                star = Some((at, seen));
            }
            (Some(wanted), _) if *wanted == b'?' || wanted == byte => {
                at += 1;
                seen += 1;
            }
            // The last `*` stands for one byte more than was tried.
            (_, Some((behind, tried))) => {
                at = behind;
                seen = tried + 1;
                star = Some((at, seen));
            }
            _ => return false,
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}
