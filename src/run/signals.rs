//! Signals to this process. A signal that its caller ignores (`nohup`, `&` in a script) stays ignored, here and in commands.

use rustix::process::Signal;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Whether signals of the terminal's keyboard reach the command without us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyboardSignals {
    /// The terminal sends them to us only.
    Forwarded,
    /// The command shares our process group, so the terminal sends them to both.
    Shared,
}

/// Receives the signals to forward to a command. Keyboard signals that the command gets as well are received but not
/// forwarded, so that they do not end this process.
pub(super) fn forwarded(keyboard: KeyboardSignals) -> mpsc::Receiver<Signal> {
    let (sender, receiver) = mpsc::channel(16);
    for (number, from_keyboard) in [
        (Signal::TERM, false),
        (Signal::HUP, false),
        (Signal::INT, true),
        (Signal::QUIT, true),
        (Signal::USR1, false),
        (Signal::USR2, false),
    ] {
        if is_ignored(number) {
            continue;
        }
        let Ok(mut stream) = signal(SignalKind::from_raw(number.as_raw())) else { continue };
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                let command_has_it = from_keyboard && keyboard == KeyboardSignals::Shared;
                if !command_has_it && sender.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// Receives the signals that ask this process to stop. Each is one value. Without a handler for any of them, none comes.
pub(crate) fn stop_requests(signals: &[Signal]) -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(16);
    for &number in signals.iter().filter(|number| !is_ignored(**number)) {
        let mut stream = signal(SignalKind::from_raw(number.as_raw()))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if sender.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    // The channel must stay open if every signal is ignored.
    tokio::spawn(async move { sender.closed().await });
    Ok(receiver)
}

/// True if the caller of this program ignores the signal. Reads the kernel's mask; false where there is no /proc.
fn is_ignored(number: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (number.as_raw() - 1) & 1 == 1
}
