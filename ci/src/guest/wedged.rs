// SPDX-License-Identifier: GPL-2.0
//! Where a guest's CPUs are when it says nothing any more: its registers, asked of QEMU over QMP, with the
//! kernel's symbols beside them.

use anyhow::{Context, Result};
use regex::Regex;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A QEMU that does not even answer must not hang the runner as well.
const PATIENCE: Duration = Duration::from_secs(10);

/// One line for each CPU, then everything that QEMU knows of them.
pub fn registers(socket: &Path, symbols: &str) -> Result<String> {
    let all = ask(socket)?;
    let mut text = String::new();
    let counter = Regex::new(r"\b(?:RIP|PC)=([0-9a-f]{16})").expect("a constant pattern");
    for (cpu, found) in counter.captures_iter(&all).enumerate() {
        let at = u64::from_str_radix(&found[1], 16)?;
        writeln!(text, "CPU {cpu}: {at:016x} {}", symbol(symbols, at))?;
    }
    Ok(text + "\n" + &all)
}

fn ask(socket: &Path) -> Result<String> {
    let stream = UnixStream::connect(socket).context("QEMU has no monitor")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut answer = |command: Option<Value>| -> Result<Value> {
        if let Some(command) = command {
            writeln!(&stream, "{command}")?;
        }
        loop {
            let line = lines.next().context("QEMU closed its monitor")??;
            let value: Value = serde_json::from_str(&line)?;
            // Events come in between.
            if value.get("event").is_none() {
                return Ok(value);
            }
        }
    };
    answer(None)?;
    answer(Some(json!({ "execute": "qmp_capabilities" })))?;
    let registers = answer(Some(json!({
        "execute": "human-monitor-command",
        "arguments": { "command-line": "info registers -a" },
    })))?;
    let text = registers["return"]
        .as_str()
        .context("QEMU has no registers to show")?;
    Ok(text.replace('\r', ""))
}

/// The last symbol of a System.map at or before `at`.
fn symbol(map: &str, at: u64) -> String {
    let mut best: Option<(u64, &str)> = None;
    for line in map.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), Some(_kind), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Ok(address) = u64::from_str_radix(address, 16) else {
            continue;
        };
        if address <= at && best.is_none_or(|(b, _)| address >= b) {
            best = Some((address, name));
        }
    }
    best.map_or_else(String::new, |(b, name)| format!("{name}+{:#x}", at - b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const MAP: &str =
        "ffffffff81000000 T _text\nffffffff81001000 t multi_cpu_stop\nffffffff81002000 T next\n";

    #[test]
    fn each_cpu_is_named_with_its_symbol() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let qemu = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut asked = BufReader::new(stream.try_clone().unwrap()).lines();
            writeln!(&stream, "{}", json!({ "QMP": {} })).unwrap();
            assert!(asked.next().unwrap().unwrap().contains("qmp_capabilities"));
            writeln!(&stream, "{}", json!({ "return": {} })).unwrap();
            assert!(asked.next().unwrap().unwrap().contains("info registers -a"));
            writeln!(&stream, "{}", json!({ "event": "RESUME" })).unwrap();
            let text = "CPU#0\r\nRIP=ffffffff81001010 RFL=1\r\nCPU#1\r\nRIP=0000000000000010\r\n";
            writeln!(&stream, "{}", json!({ "return": text })).unwrap();
        });
        let text = registers(&socket, MAP).unwrap();
        qemu.join().unwrap();
        assert!(
            text.starts_with(
                "CPU 0: ffffffff81001010 multi_cpu_stop+0x10\nCPU 1: 0000000000000010 \n"
            ),
            "{text}"
        );
        assert!(text.contains("RFL=1\nCPU#1"));
    }

    #[test]
    fn a_missing_monitor_is_an_error() {
        assert!(registers(Path::new("/nonexistent"), MAP).is_err());
    }
}
