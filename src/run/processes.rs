//! Finds the processes of a command in /proc: by their parents, and by the environment that they inherited.
//!
//! Without /proc it finds none.

use super::runtime::FILES_VARIABLE;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A process that still runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its process id.
    pub pid: Pid,
    /// The name of its program, at most 15 bytes.
    pub program: String,
}

/// Returns the descendants of a process, by the parent ids in /proc.
pub(crate) fn descendants(root: Pid) -> Vec<Pid> {
    let parents: Vec<_> = all().filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let above = found[at].as_raw_nonzero().get();
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// Returns the processes that were started in an environment with files in this folder or below it. Also finds those that
/// left their process group and those that lost their parent; not those that replaced their environment.
pub(crate) fn in_environment(files: &Path) -> Vec<Process> {
    let mut marker = format!("{FILES_VARIABLE}=").into_bytes();
    marker.extend_from_slice(files.as_os_str().as_bytes());
    let has_marker = |pid: Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let named = |variable: &[u8]| matches!(variable.strip_prefix(&*marker), Some([] | [b'/', ..]));
        environment.split(|byte| *byte == 0).any(named)
    };
    let running = all().filter(|pid| has_marker(*pid)).filter_map(|pid| {
        let stat = stat(pid)?;
        (!stat.has_ended).then_some(Process { pid, program: stat.program })
    });
    running.collect()
}

/// Returns everything that a command started and that can be found: its descendants, and by its environment. `files` is
/// empty if the environment has none.
pub(super) fn started_by(root: Pid, files: &OsStr) -> Vec<Pid> {
    let mut found: BTreeSet<i32> = descendants(root).into_iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    if !files.is_empty() {
        found.extend(in_environment(Path::new(files)).into_iter().map(|process| process.pid.as_raw_nonzero().get()));
    }
    found.into_iter().filter_map(Pid::from_raw).filter(|pid| *pid != root).collect()
}

/// Names one process for later programs on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessMark {
    pid: i32,
    /// When it started, in clock ticks since the boot: ids are used again.
    started: u64,
    /// The boot of the machine, and the namespace of the id.
    scope: String,
}

impl ProcessMark {
    /// This process; `None` without /proc.
    pub(crate) fn own() -> Option<Self> {
        let pid = rustix::process::getpid();
        Some(Self { pid: pid.as_raw_nonzero().get(), started: stat(pid)?.started, scope: scope()? })
    }

    /// True if the process has ended. False if that can't be known here: its machine or container is another one.
    pub(crate) fn has_ended(&self) -> bool {
        let is_running = || {
            Pid::from_raw(self.pid).and_then(stat).is_some_and(|stat| !stat.has_ended && stat.started == self.started)
        };
        scope().is_some_and(|scope| scope == self.scope) && !is_running()
    }
}

fn scope() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

fn all() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}

/// Fields of `/proc/PID/stat`.
struct Stat {
    program: String,
    /// The process has ended, and its parent has not read its status yet.
    has_ended: bool,
    parent: i32,
    started: u64,
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(&String::from_utf8_lossy(&text))
}

fn parse(text: &str) -> Option<Stat> {
    // The program's name is in parentheses and may contain anything.
    let (head, rest) = text.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    Some(Stat {
        program: head.split_once('(')?.1.to_owned(),
        has_ended: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_may_contain_anything() {
        let fields = "S 7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123 0 0";
        let stat = parse(&format!("42 (a) b (c) {fields}")).unwrap();
        assert_eq!((stat.program.as_str(), stat.parent, stat.started, stat.has_ended), ("a) b (c", 7, 123, false));
        assert!(parse("42 (a)").is_none() && parse("").is_none());
    }

    #[test]
    fn a_process_is_found_by_its_id_and_start() {
        let own = ProcessMark::own().unwrap();
        assert!(!own.has_ended());
        assert!(ProcessMark { started: own.started + 1, ..own.clone() }.has_ended());
        assert!(!ProcessMark { pid: 0, scope: "another boot".to_owned(), ..own }.has_ended());
    }
}
